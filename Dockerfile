# An image in which `mtbus predict` and `mtbus serve` need no network: docs/serve.md says how.
# Built from a checkout: docker build -t mtbus .
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /src/
COPY mtbus_jax /src/mtbus_jax
COPY tfds_busi /src/tfds_busi
COPY configs /src/configs
RUN pip install --no-cache-dir '/src[dicom,serve,weights]' && rm -r /src

# Without the rights of root. --user gives another user, so compiled programs are kept in /tmp.
RUN useradd --create-home mtbus
USER mtbus
WORKDIR /home/mtbus
ENV JAX_PLATFORMS=cpu XDG_CACHE_HOME=/tmp/cache

EXPOSE 8000
ENTRYPOINT ["mtbus"]
CMD ["--help"]

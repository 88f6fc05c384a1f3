"""A small HTTP server: a picture in, class and mask out; see `command` and docs/serve.md."""

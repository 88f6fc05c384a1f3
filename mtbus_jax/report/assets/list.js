// The list of cases. Only the rows in sight exist, however long the list is.
"use strict";

class CaseList {
  /** `box` is the scrolling listbox; `onSelect(position)` is called when a case is chosen in it. */
  constructor(box, onSelect) {
    this.box = box;
    this.onSelect = onSelect;
    this.cases = [];
    this.selected = -1;
    this.rows = [];
    this.room = make("div", { className: "room", role: "presentation" });
    box.append(this.room);
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        this.draw();
      });
    };
    box.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(later).observe(box);
    box.addEventListener("keydown", event => this.onKey(event));
    box.addEventListener("click", event => {
      const row = event.target.closest("[role=option]");
      if (row) this.onSelect(Number(row.dataset.position));
    });
  }

  /** Shows these cases from the top. */
  setCases(cases) {
    this.cases = cases;
    this.room.style.height = cases.length * this.rowHeight() + "px";
    this.box.scrollTop = 0;
    this.selected = -1;
    this.draw();
  }

  /** Marks the case at a position and brings it into sight. */
  select(position) {
    this.selected = position;
    const height = this.rowHeight();
    const top = position * height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const lowest = top + height - this.box.clientHeight;
    if (lowest > this.box.scrollTop) this.box.scrollTop = lowest;
    this.draw();
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row-height"));
  }

  draw() {
    const height = this.rowHeight();
    const wanted = Math.ceil(this.box.clientHeight / height) + 4;
    while (this.rows.length < wanted) this.rows.push(this.newRow());
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - 2);
    this.box.removeAttribute("aria-activedescendant");
    for (let k = 0; k < this.rows.length; k++) {
      // A row keeps its case while it stays in sight.
      const behind = (((k - first) % this.rows.length) + this.rows.length) % this.rows.length;
      this.fill(this.rows[k], first + behind, height);
    }
  }

  newRow() {
    const row = {
      thumb: make("img", { alt: "", className: "thumb", hidden: !run.pictures }),
      name: make("span", { className: "name" }),
      dice: make("span", { className: "row-figure" }),
      classes: make("span", { className: "classes" }),
      uncertainty: make("span", { className: "row-figure" }),
      badges: make("span", { className: "row-badges" }),
      shown: -1,
    };
    const { thumb, name, dice, classes, uncertainty, badges } = row;
    const attributes = { role: "option", id: "row-" + this.rows.length, className: "row" };
    row.node = make("div", attributes, thumb, name, dice, classes, uncertainty, badges);
    this.room.append(row.node);
    return row;
  }

  fill(row, position, height) {
    row.node.hidden = position >= this.cases.length;
    if (row.node.hidden) return;
    const i = this.cases[position];
    row.node.style.transform = `translateY(${position * height}px)`;
    row.node.dataset.position = position;
    row.node.setAttribute("aria-posinset", position + 1);
    row.node.setAttribute("aria-setsize", this.cases.length);
    row.node.setAttribute("aria-selected", position === this.selected);
    if (position === this.selected) this.box.setAttribute("aria-activedescendant", row.node.id);
    if (row.shown === i) return;
    row.shown = i;
    if (run.pictures) row.thumb.src = picturesOf(i).image;
    row.name.textContent = columns.uid[i];
    row.name.title = columns.uid[i];
    const said = valueOf("final_class", i);
    const truth = className(columns.label[i]);
    const wrong = said !== undefined && hasClass(i) && said !== columns.label[i];
    const differs = wrong || (said !== undefined && !hasClass(i));
    row.classes.textContent = differs ? `${truth} → ${className(said)}` : truth;
    row.classes.classList.toggle("bad-text", wrong);
    fillFigure(row.dice, make("small", {}, "Dice"), valueOf("final_dice", i));
    row.dice.classList.toggle("bad-text", isPoor(valueOf("final_dice", i)));
    const short = make("abbr", { title: "uncertainty" }, "unc.");
    fillFigure(row.uncertainty, short, valueOf("uncertainty", i));
    // The row already shows what is right or wrong.
    const badges = badgesOf(i).filter(([, style]) => style === "warn" || style === "changed");
    row.badges.replaceChildren(
      ...badges.map(([text, style]) => make("span", { className: "badge " + style }, text))
    );
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight()) - 1);
    const last = this.cases.length - 1;
    const target = {
      ArrowDown: this.selected + 1,
      ArrowUp: this.selected - 1,
      PageDown: this.selected + page,
      PageUp: this.selected - page,
      Home: 0,
      End: last,
    }[event.key];
    if (target === undefined || last < 0) return;
    event.preventDefault();
    this.onSelect(Math.min(last, Math.max(0, target)));
  }
}

/** A number with its name in front; nothing if the run has no such number. */
function fillFigure(node, name, value) {
  node.replaceChildren(...(value === undefined ? [] : [name, " ", figure(value)]));
}

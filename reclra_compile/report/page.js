"use strict";
(() => {
  const root = document.documentElement;
  const panels = new Map(JSON.parse(document.getElementById("data").textContent).panels.map((p) => [p.name, p]));

  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  for (const button of document.querySelectorAll("[data-toggle]")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      for (const same of document.querySelectorAll(`[data-toggle="${button.dataset.toggle}"]`)) {
        same.setAttribute("aria-pressed", String(shown));
      }
      root.classList.toggle("hide" + button.dataset.toggle, !shown);
    });
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {  // without the permission, or on an old browser
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  // a pointer over a plot, or the arrow keys in it, read an epoch out in the line under it
  const text = (value, digits = 4) => (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5)
    ? String(+value.toPrecision(digits)) : value.toExponential(digits - 2));

  for (const plot of document.querySelectorAll("svg.plot")) {
    const panel = panels.get(plot.dataset.panel);
    const hair = plot.querySelector(".hair");
    const caption = plot.parentElement.querySelector("figcaption");
    let at = -1;

    const show = (i) => {
      at = i;
      hair.setAttribute("visibility", i < 0 ? "hidden" : "visible");
      caption.replaceChildren();
      if (i < 0) { caption.textContent = "\u00a0"; return; }
      hair.setAttribute("transform", `translate(${panel.x[i]} 0)`);
      caption.append(`epoch ${panel.epochs[i]}`);
      for (const curve of panel.curves) {
        if (curve.mean[i] === null || root.classList.contains("hide" + curve.k)) continue;
        const name = document.createElement("b");
        name.textContent = curve.name;
        const spread = curve.std && curve.std[i] !== null ? ` ± ${text(curve.std[i], 2)}` : "";
        caption.append(" · ", name, ` ${text(curve.mean[i])}${spread}${panel.unit}`);
      }
    };

    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * plot.viewBox.baseVal.width;
      let best = 0;
      panel.x.forEach((place, i) => { if (Math.abs(place - x) < Math.abs(panel.x[best] - x)) best = i; });
      show(best);
    });
    plot.addEventListener("pointerleave", () => show(-1));
    plot.addEventListener("blur", () => show(-1));
    plot.addEventListener("keydown", (event) => {
      const last = panel.x.length - 1;
      const next = { ArrowLeft: at < 0 ? last : at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: -1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      show(event.key === "Escape" ? -1 : Math.max(0, Math.min(last, next)));
    });
  }
})();

"use strict";
(() => {
  const svg = document.getElementById("chart"), about = document.getElementById("about"), hint = about.textContent;
  svg.addEventListener("pointerover", (e) => {
    const dot = e.target.closest(".dot");
    about.textContent = dot ? dot.querySelector("title").textContent : hint;
    about.classList.toggle("on", Boolean(dot));
  });
  svg.addEventListener("pointerleave", () => { about.textContent = hint; about.classList.remove("on"); });
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  const [, , width] = svg.getAttribute("viewBox").split(" ").map(Number);
  let scale = 0;
  const show = () => { svg.style.width = scale ? `${width * scale}px` : ""; };
  document.getElementById("in").addEventListener("click", () => { scale = (scale || 1) * 1.25; show(); });
  document.getElementById("out").addEventListener("click", () => { scale = (scale || 1) / 1.25; show(); });
  document.getElementById("fit").addEventListener("click", () => { scale = 0; show(); });
  document.body.dataset.ready = "true";
})();

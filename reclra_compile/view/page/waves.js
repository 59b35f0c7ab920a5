/* the stepper: the forward pass, then the waves in which errors reach regions */
let timer = 0;

function stepTo(wave) {
  state.wave = wave === null ? null : Math.min(lastWave, Math.max(-1, wave));
  show();
}
function step(by) {
  stepTo(state.wave === null ? (by > 0 ? -1 : lastWave) : state.wave + by);
}
function stop() {
  clearInterval(timer);
  timer = 0;
  $("play").textContent = "Play";
}
function play() {
  if (timer) return stop();
  stepTo(state.wave === null || state.wave >= lastWave ? -1 : state.wave + 1);
  $("play").textContent = "Pause";
  timer = setInterval(
    () => {
      if (state.wave >= lastWave) return stop();
      stepTo(state.wave + 1);
    },
    Math.max(60, Math.min(1100, 20000 / (lastWave + 1))),
  );
}

function some(names) {
  return names.length > 5 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", ");
}
function tellWave() {
  const w = state.wave,
    plan = plans[0];
  $("wave").value = w === null ? lastWave : w;
  $("wave").setAttribute(
    "aria-valuetext",
    w === null ? "all waves" : w < 0 ? "forward pass" : `wave ${w} of ${lastWave}`,
  );
  $("all").setAttribute("aria-pressed", String(w === null));
  $("prev").disabled = w === -1;
  $("next").disabled = w === lastWave;
  let said = `All ${lastWave + 1} waves. `;
  if (w === null) said = plans.length > 1 ? said : `${said}Play shows how the error spreads.`;
  else if (w < 0) said = "Forward pass: activities flow from the input to the loss.";
  else if (plans.length > 1) {
    said =
      `Wave ${w} of ${lastWave}: ` +
      plans.map((p) => `${plural(p.regions.filter((r) => r.wave === w).length, "region")} of ${p.name}`).join(", ");
  } else {
    const mine = plan.regions.filter((r) => r.wave === w);
    const from = [...new Set(mine.flatMap((r) => plan.into[r.index].map((p) => plan.regions[p.source].name)))];
    const verb = mine.length === 1 ? "gets its error" : "get their errors";
    const source = w === 0 ? "the loss" : some(from) || "nothing";
    said = `Wave ${w} of ${lastWave}: ${some(mine.map((r) => r.name))} ${verb} from ${source}.`;
  }
  $("told").textContent = said;
}

$("play").addEventListener("click", play);
$("prev").addEventListener("click", () => {
  stop();
  step(-1);
});
$("next").addEventListener("click", () => {
  stop();
  step(1);
});
$("all").addEventListener("click", () => {
  stop();
  stepTo(null);
});
/* where all waves show, the slider stands at its end: a click there changes nothing that it would tell of, and a key
   starts from there */
for (const kind of ["input", "click"])
  $("wave").addEventListener(kind, () => {
    stop();
    stepTo(Number($("wave").value));
  });
$("wave").addEventListener("keydown", (e) => {
  if (state.wave !== null || !e.key.startsWith("Arrow")) return;
  e.preventDefault();
  stop();
  step("ArrowLeft ArrowDown".includes(e.key) ? -1 : 1);
});

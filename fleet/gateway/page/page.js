// Draws what /fleet/state tells. Names come from files and clients: they are put in as text, never as markup.
import { ago, gigabytes, seconds } from "./formats.js";
import { fill } from "./table.js";

const PAUSE_MS = 2000;

async function draw() {
  const answer = await fetch("fleet/state", { cache: "no-store" });
  if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
  const state = await answer.json();
  const now = state.now_s;
  document.getElementById("summary").textContent =
    `${state.servers.filter((one) => one.state === "ready").length} of ${state.servers.length} servers ready, ` +
    `${state.jobs.length} jobs, ${state.clients} clients here`;
  fill("servers", state.servers, (one) => [
    one.server_id,
    { text: one.state, kind: one.state },
    seconds(one.backlog_s),
    String(one.jobs),
    one.warm.length ? one.warm.map((model) => `${model.folder}/${model.name} (${model.tier})`).join(", ") : { text: "none", kind: "none" },
    gigabytes(one.warm_bytes, one.cap_bytes),
    String(one.restarts),
  ]);
  fill("jobs", state.jobs, (one) => [one.prompt_id, { text: one.state, kind: one.state }, one.server_id ?? "–", String(one.attempts), ago(now - one.submitted_s)]);
  fill("decisions", state.decisions, (one) => [
    ago(now - one.at_s),
    one.prompt_id,
    one.server_id,
    one.reason,
    one.estimates.map((other) => `${other.server_id}: ${seconds(other.wait_s)} + ${seconds(other.load_s)}`).join(", "),
  ]);
}

async function keepDrawing() {
  try {
    await draw();
  } catch (error) {
    document.getElementById("summary").textContent = `The state cannot be read: ${error.message}`;
  }
  setTimeout(keepDrawing, PAUSE_MS);
}

keepDrawing();

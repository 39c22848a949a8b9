"""Prompts that are cancelled at every moment of their short lives: what was said to be cancelled never ends as a success."""

import threading
import time
import uuid

import pytest

RSS_GROWTH_BYTES = 300 << 20
BATCH = 20
ENDS_WITHIN_S = 60.0
WAYS = ("job", "jobs", "interrupt", "queue")


def quick_prompt(salt):
    """Takes a few milliseconds, or less when it is cached."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": salt % 200}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": salt}},
    }


def cancel(live, prompt_id, way):
    """Cancel in one of the ways; True, False, or None where the answer does not say whether something was stopped."""
    if way == "job":
        return live.post(f"/api/jobs/{prompt_id}/cancel", {})[1]["cancelled"]
    if way == "jobs":
        return live.post("/api/jobs/cancel", {"job_ids": [prompt_id]})[1]["cancelled"]
    if way == "interrupt":
        assert live.post("/interrupt", {"prompt_id": prompt_id})[0] == 200
    else:
        assert live.post("/queue", {"delete": [prompt_id]})[0] == 200
    return None


def cancel_in_time(live, prompt_ids, dice, answers):
    """Cancel each of *prompt_ids* about when it runs; several threads do this at once."""
    for prompt_id in prompt_ids:
        time.sleep(dice.random() * 0.01)
        answers[prompt_id] = cancel(live, prompt_id, dice.choice(WAYS))


def ended(live, prompt_ids):
    """The history once none of *prompt_ids* waits or runs."""
    ends_s = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < ends_s:
        queue = live.get("/queue")
        if not {row[1] for row in queue["queue_running"] + queue["queue_pending"]} & set(prompt_ids):
            return live.get(f"/history?max_items={4 * BATCH}")
        time.sleep(0.005)
    raise AssertionError("prompts that were cancelled still wait or run")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("area, share", [("interrupts sample", 0.5), pytest.param("interrupts", 1.0, marks=pytest.mark.attack)])
def test_what_is_cancelled_does_not_succeed(attacked, dice, seconds, area, share):
    server = attacked(area, "--cache-none") if dice.random() < 0.5 else attacked(area)
    live = server.server
    with server.watch() as result:
        ends_s = time.monotonic() + seconds * share
        while time.monotonic() < ends_s:
            prompt_ids = [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(BATCH)]
            answers = {}
            for prompt_id in prompt_ids:
                assert live.post("/prompt", {"prompt": quick_prompt(dice.randrange(1 << 20)), "prompt_id": prompt_id})[0] == 200
                if dice.random() < 0.3:
                    answers[prompt_id] = cancel(live, prompt_id, dice.choice(WAYS))
            left = [prompt_id for prompt_id in prompt_ids if prompt_id not in answers]
            workers = [threading.Thread(target=cancel_in_time, args=(live, left[part::2], dice, answers)) for part in range(2)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            history = ended(live, prompt_ids)
            result.tries += len(prompt_ids)
            for prompt_id in prompt_ids:
                status = history[prompt_id]["status"]["status_str"] if prompt_id in history else "taken back"
                if answers[prompt_id] is True and status == "success":
                    result.wrong_results.append(f"{prompt_id} was said to be cancelled and succeeded")
                if answers[prompt_id] is False and status == "taken back":
                    result.wrong_results.append(f"{prompt_id} was said not to be cancelled and did not run")
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)

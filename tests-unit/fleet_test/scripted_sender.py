"""A sender whose replicas do what a test tells them."""

import asyncio
import dataclasses

from fleet_books import A, B, C, summary

from fleet.dispatcher import Dispatcher, DispatchSettings
from fleet.messages import NotRun, ServerReport, Taken
from fleet.values import Job, ServerState


class ScriptedSender:
    """*behaviours* by server: called with the job, gives an async iterator of replies. Default: takes it, and ends it when told."""

    def __init__(self):
        self.place = None
        self.behaviours, self.sent, self.outcomes = {}, [], {}

    async def send(self, sent):
        server_id = self.place(sent)
        self.sent.append((sent.prompt_id, server_id))
        if server_id is None:
            yield NotRun("no server has room")
            return
        async for reply in self.behaviours.get(server_id, self.take)(sent):
            yield reply

    async def take(self, sent):
        outcome = self.outcomes[sent.prompt_id] = asyncio.get_running_loop().create_future()
        yield Taken(sent.server_id, f"http://{sent.server_id}", float(sent.body.get("number", 0)))
        yield await outcome


class Setup:
    """A dispatcher over servers *s* and *t*, which have every file; *began* by path."""

    def __init__(self, *server_ids, **settings):
        self.sender, self.begun = ScriptedSender(), {}
        self.dispatcher = Dispatcher(self.sender, self._began, DispatchSettings(**settings))
        self.sender.place = self.dispatcher.place

    async def _began(self, node_id, path):
        return self.begun.get(path)

    async def report(self, server_id, *warm, state=ServerState.READY, files=(A, B, C), restarts=0, **more):
        told = ServerReport(
            server_id, f"http://{server_id}", state, "node", f"started-{server_id}", restarts, "CPU", summary(*warm, **more), files
        )
        await self.dispatcher.servers_known.take(told)

    async def submit(self, prompt_id, file=A, **body):
        prompt = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": file.name}}}
        return await self.dispatcher.submit(Job(prompt_id, {"prompt": prompt, "prompt_id": prompt_id, "client_id": "me", **body}))

    async def end(self, prompt_id, outcome):
        """Have a job end, and what follows from it be done."""
        self.sender.outcomes[prompt_id].set_result(outcome)
        await self.settle()

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0)

    async def state(self, prompt_id):
        return (await self.dispatcher.find(prompt_id)).state


def history(status="success", *messages):
    """A history entry."""
    return {"outputs": {}, "status": {"status_str": status, "completed": status == "success", "messages": list(messages)}}


def changed(file, **more):
    """Another file in its place."""
    return dataclasses.replace(file, **more)

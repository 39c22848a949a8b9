"""Runs one job, from its input to its result."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from serverless.job_errors import PROCESSING_FAILED, UPLOAD_FAILED, JobFailed, execution_error, interruption
from serverless.job_input import InputImage, InvalidInput, JobInput
from serverless.job_outputs import Base64Encoder, BucketEncoder, Encoder, JobOutputs, OutputCollector
from serverless.job_progress import ProgressReport, ProgressReporter
from serverless.job_registry import job_key
from serverless.job_summary import JobSummary, JobTimes, ModelUse
from serverless.prompt_end import PromptEnd, PromptLost
from serverless.prompt_run import PromptRun
from serverless.server_api import ServerAnswer, ServerUnreachable
from serverless.server_link import ServerLink
from serverless.workflow_normalization import NormalizedWorkflow, normalize_workflow_for_caching

log = logging.getLogger(__name__)


class JobRun:
    """Runs one job once. ``run`` returns the result; a cancelled ``run`` stops its prompt on the server, and no other."""

    def __init__(
        self,
        link: ServerLink,
        job_id: str,
        job_input: Any,
        report_progress: ProgressReport,
        connect: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*connect()* returns when the link's socket is open and raises ``JobFailed`` when the server is not there."""
        self._link = link
        self._job_id = job_id
        self._given = job_input
        self._report_progress = report_progress
        self._connect = connect
        self._clock = clock
        self._started_s = clock()
        self._times = JobTimes()
        self._names = NormalizedWorkflow({}, {})
        self._prompt: PromptRun | None = None
        self._end: PromptEnd | None = None
        self._wants_report = False

    async def run(self) -> dict[str, Any]:
        """The result, or ``{"error": …}``. Raises nothing but ``CancelledError``."""
        try:
            result = await self._run(JobInput.parse(self._given))
        except JobFailed as error:
            result = error.as_result()
        except (InvalidInput, PromptLost) as error:
            result = {"error": str(error)}
        except (ServerUnreachable, ServerAnswer) as error:
            result = {"error": f"HTTP communication error with ComfyUI: {error}"}
        except asyncio.CancelledError:
            log.info("%s", self._summary("cancelled").line())
            raise
        except Exception as error:
            log.exception("job %s failed in a way that is not foreseen", self._job_id)
            result = {"error": f"An unexpected error occurred: {type(error).__name__}: {error}"}
        summary = self._summary("failed" if "error" in result else "done")
        log.info("%s", summary.line())
        if self._wants_report and "error" not in result:
            result["report"] = summary.as_report()
        return result

    async def _run(self, job: JobInput) -> dict[str, Any]:
        self._wants_report = job.wants_report
        files = _decoded(job.images)
        await self._connect()
        uploading_s = self._clock()
        await self._upload(files)
        self._times.upload_s = self._clock() - uploading_s
        self._names = await self._normalized(job)
        self._times.prepare_s = self._clock() - self._started_s - self._times.upload_s
        submitting_s = self._clock()
        end = self._end = await self._execute(job)
        assert self._prompt is not None
        self._times.submit_s = self._prompt.queued_s - submitting_s
        self._times.prompt_s = max(end.ended_s - self._prompt.queued_s, 0.0)
        outputs = await self._collect(end)
        self._times.results_s = self._clock() - max(end.ended_s, self._prompt.queued_s)
        return _result(outputs)

    async def _upload(self, files: list[tuple[str, bytes]]) -> None:
        errors = []
        for name, data in files:
            try:
                await self._link.api.upload(name, data)
            except ServerUnreachable as error:
                errors.append(f"Timeout uploading {name}" if error.is_busy else f"Error uploading {name}: {error}")
            except ServerAnswer as error:
                errors.append(f"Error uploading {name}: {error}")
        if errors:
            raise JobFailed(UPLOAD_FAILED, tuple(errors))

    async def _normalized(self, job: JobInput) -> NormalizedWorkflow:
        """The workflow under canonical ids. Nodes that look themselves up in the page's workflow keep theirs."""
        if not self._link.settings.normalize:
            return NormalizedWorkflow(job.workflow, {node_id: node_id for node_id in job.workflow})
        facts = self._link.facts
        kinds = {node_id: node.get("class_type") for node_id, node in job.workflow.items() if isinstance(node, dict)}
        await facts.learn(kind for kind in kinds.values() if isinstance(kind, str))
        keep = [node_id for node_id, kind in kinds.items() if kind in facts.searching] if "workflow" in job.extra_pnginfo else []
        return normalize_workflow_for_caching(job.workflow, facts.told, keep)

    async def _execute(self, job: JobInput) -> PromptEnd:
        """Run the prompt within the job's time."""
        progress = ProgressReporter(self._report_progress, self._names.original_id)
        prompt = self._prompt = PromptRun(
            self._link, job_key(self._job_id, self._given), progress.take, self._names, self._connect, self._clock
        )
        timeout_s = job.timeout_s or self._link.settings.job_timeout_s or None
        try:
            async with asyncio.timeout(timeout_s):
                return await prompt.run(self._extra_data(job))
        except TimeoutError:
            await prompt.stop()
            at = f" at node {progress.node}" if progress.node else ""
            raise JobFailed(f"Job timed out after {timeout_s:g} s{at}; its prompt {prompt.prompt_id} was stopped") from None
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.create_task(prompt.stop()))
            raise

    def _extra_data(self, job: JobInput) -> dict[str, Any]:
        api_key = job.comfy_org_api_key or self._link.settings.comfy_org_api_key
        extra: dict[str, Any] = {"api_key_comfy_org": api_key} if api_key else {}
        return {**extra, "extra_pnginfo": job.extra_pnginfo} if job.extra_pnginfo else extra

    async def _collect(self, end: PromptEnd) -> JobOutputs:
        storage = self._link.storage
        encoder: Encoder = Base64Encoder() if storage is None else BucketEncoder(storage, self._job_id)
        outputs = await OutputCollector(self._link.api.view, encoder, self._names.original_id).collect(end.entry.get("outputs") or {})
        outputs.errors[:0] = self._execution_errors(end)
        return outputs

    def _execution_errors(self, end: PromptEnd) -> list[str]:
        errors = [execution_error(data, self._names) for data in end.messages("execution_error")]
        errors += [interruption(data, self._names) for data in end.messages("execution_interrupted")]
        if not errors and (end.entry.get("status") or {}).get("status_str") == "error":
            errors.append("Workflow execution error: the server does not say more; its log does")
        return errors

    def _summary(self, outcome: str) -> JobSummary:
        self._times.total_s = self._clock() - self._started_s
        prompt_id = "" if self._prompt is None else self._prompt.prompt_id
        nodes = len(self._names.workflow)
        if self._end is None:
            return JobSummary(self._job_id, prompt_id, outcome, ModelUse(), self._times, nodes)
        use = ModelUse.from_history(self._end.entry, self._link.tells_models)
        cached = {node for data in self._end.messages("execution_cached") for node in data.get("nodes", ())}
        ran = tuple(self._names.original_id(node) for node in self._end.ran)
        return JobSummary(self._job_id, prompt_id, outcome, use, self._times, nodes, len(cached), ran)


def _decoded(images: tuple[InputImage, ...]) -> list[tuple[str, bytes]]:
    """Name and bytes of each input file; all faults are reported at once. Raises ``JobFailed``."""
    files, errors = [], []
    for image in images:
        try:
            files.append((image.name, image.decode()))
        except InvalidInput as error:
            errors.append(str(error))
    if errors:
        raise JobFailed(UPLOAD_FAILED, tuple(errors))
    return files


def _result(outputs: JobOutputs) -> dict[str, Any]:
    """``images`` is always there; other lists only when they hold something."""
    if not outputs.lists:
        if outputs.errors:
            raise JobFailed(PROCESSING_FAILED, tuple(outputs.errors))
        return {"status": "success_no_images", "images": []}
    result: dict[str, Any] = {"images": outputs.lists.get("images", []), **outputs.lists}
    if outputs.errors:
        result["errors"] = outputs.errors
    return result

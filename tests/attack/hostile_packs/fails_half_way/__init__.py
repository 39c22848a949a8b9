"""Replaces what it can reach of the server, then fails."""

import sys

import comfy.model_management
import comfy.samplers
import execution
import folder_paths
import nodes
import server


def broken(*arguments, **named):
    """Stands in for whatever was there."""
    raise SystemExit("left behind")


for name in ("soft_empty_cache", "unload_all_models", "throw_exception_if_processing_interrupted", "is_oom"):
    setattr(comfy.model_management, name, broken)
comfy.samplers.KSampler.sample = broken
execution.PromptExecutor.execute = execution.PromptQueue.get = execution.PromptQueue.task_done = broken
execution.validate_prompt = execution.execute = nodes.before_node_execution = nodes.interrupt_processing = broken
folder_paths.get_save_image_path = broken
folder_paths.folder_names_and_paths.clear()
nodes.NODE_CLASS_MAPPINGS["PreviewImage"] = broken
server.PromptServer.send_sync = server.PromptServer.instance.send_sync = broken
server.PromptServer.instance.on_prompt_handlers.append(broken)
server.PromptServer.instance.app.middlewares.append(broken)
server.PromptServer.instance.routes.get("/left_behind")(broken)
sys.path.insert(0, "/left/behind")
raise ImportError("a library that is not there")

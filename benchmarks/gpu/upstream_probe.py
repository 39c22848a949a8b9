"""Times a step of a ComfyUI checkout, the current directory, with the model API that it shares with this project.

python benchmarks/gpu/upstream_probe.py CHECKPOINT SIDE
"""

import json
import os
import statistics
import sys
import time

BATCH, TOKENS, SIGMA, REPEATS = 2, 77, 5.0, 5


def main() -> None:
    """Print, as the last line, the seconds of a step and the bytes at its peak."""
    checkpoint, side = sys.argv[1], int(sys.argv[2])
    sys.path.insert(0, os.getcwd())
    sys.argv = sys.argv[:1]
    import torch

    import comfy.model_management
    import comfy.sd

    device = comfy.model_management.get_torch_device()
    with torch.inference_mode():
        patcher = comfy.sd.load_checkpoint_guess_config(checkpoint)[0]
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
        network = patcher.model
        latent = torch.randn(BATCH, 4, side, side, device=device)
        context = torch.randn(BATCH, TOKENS, network.model_config.unet_config["context_dim"], device=device)
        extra = {"y": torch.randn(BATCH, network.adm_channels, device=device)} if network.adm_channels else {}
        sigmas = torch.full((BATCH,), SIGMA, device=device)
        times = []
        for turn in range(REPEATS + 2):
            torch.cuda.synchronize()
            if turn == 1:
                torch.cuda.reset_peak_memory_stats()
            started_s = time.perf_counter()
            network.apply_model(latent, sigmas, c_crossattn=context, **extra)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - started_s)
        print(json.dumps({"step_s": statistics.median(times[2:]), "peak_bytes": torch.cuda.max_memory_allocated()}))


if __name__ == "__main__":
    main()

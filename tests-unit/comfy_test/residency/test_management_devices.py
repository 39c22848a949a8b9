"""Devices by flags, their memory, dtypes, and importing without torch."""

import gc
import subprocess
import sys
import threading

import psutil
import pytest
import torch
from residency_models import HOST, MIB, arguments, management

import comfy.memory_management as memory_management
import comfy.model_management as model_management
import comfy.pinned_memory as pinned_memory
from comfy.interruption import InterruptProcessingException
from comfy.model_management import CPUState, VRAMState
from comfy.residency.device_table import DeviceTable
from comfy.residency.pinning import PinLedger
from comfy.residency.simulated import SimulatedDevice


def test_importing_needs_no_torch_and_asks_for_no_device():
    code = "import sys, comfy.model_management as m; print('torch' in sys.modules, m.process_models().has_manager(), m.VRAMState(3).name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "NORMAL_VRAM"]


def test_the_cpu_computes_in_float32_and_keeps_no_vram_policy():
    with management() as manager:
        names = model_management
        assert (names.get_torch_device(), names.vram_state, names.cpu_state) == (HOST, VRAMState.DISABLED, CPUState.CPU)
        assert names.cpu_mode() and not names.mps_mode() and not names.is_nvidia() and not names.is_amd()
        for device in (None, HOST):
            for weights in (None, torch.float16, torch.bfloat16, torch.float32):
                assert names.unet_dtype(device, 10**9, weight_dtype=weights) == torch.float32
        assert names.unet_manual_cast(torch.float32, HOST) is None
        assert names.unet_manual_cast(torch.float16, HOST) == torch.float32
        assert names.vae_dtype(HOST, [torch.float16, torch.bfloat16, torch.float32]) == torch.float32
        for weights in (torch.float32, torch.bfloat16, torch.float16):
            assert names.text_encoder_dtype(HOST, weights) == weights
        assert names.text_encoder_dtype(HOST) == names.text_encoder_dtype(HOST, torch.float8_e5m2) == torch.float16
        assert names.text_encoder_device() == HOST
        assert names.lora_compute_dtype(HOST) == torch.float32 and names.intermediate_dtype() == torch.float32
        assert names.get_total_memory() == psutil.virtual_memory().total
        assert names.minimum_inference_memory() == int(0.8 * 1024 * MIB) + 400 * MIB
        assert not names.should_use_fp16() and not names.should_use_bf16(HOST) and not names.supports_fp8_compute()
        assert names.get_all_torch_devices() == [HOST] and names.get_all_torch_devices(exclude_current=True) == []
        assert names.get_torch_device_name(HOST) == "cpu" and manager.devices.kind == "cpu"
        assert names.pin_memory(torch.zeros(4)) is False and names.TOTAL_PINNED_MEMORY == 0


def test_large_fp8_weights_stay_fp8_where_float32_would_not_fit():
    with management():
        assert model_management.unet_dtype(HOST, 10**6, weight_dtype=torch.float8_e4m3fn) == torch.float32
        assert model_management.unet_dtype(HOST, -1, weight_dtype=torch.float8_e4m3fn) == torch.float8_e4m3fn
        assert model_management.unet_manual_cast(torch.float8_e4m3fn, HOST) == torch.float32


@pytest.mark.parametrize(
    ("flag", "dtype"),
    [
        ("fp16_unet", torch.float16),
        ("bf16_unet", torch.bfloat16),
        ("fp8_e5m2_unet", torch.float8_e5m2),
        ("fp64_unet", torch.float64),
        ("fp32_unet", torch.float32),
    ],
)
def test_flags_force_the_unet_dtype(flag, dtype):
    with management(**{flag: True}):
        assert model_management.unet_dtype(HOST, 1) == dtype


def test_flags_force_vae_and_text_encoder_dtypes():
    with management(bf16_vae=True, fp8_e4m3fn_text_enc=True):
        assert model_management.vae_dtype(HOST, []) == torch.bfloat16
        assert model_management.text_encoder_dtype() == model_management.text_encoder_dtype(HOST, torch.float32) == torch.float8_e4m3fn


def test_simulated_devices_are_accelerators_that_compute_as_the_cpu():
    with management(64 * MIB, devices=2):
        names = model_management
        first, second = names.get_all_torch_devices()
        assert names.get_torch_device() == first and first != HOST and first != second and names.is_device_cpu(first)
        assert (names.vram_state, names.cpu_state) == (VRAMState.NORMAL_VRAM, CPUState.CPU)
        assert names.get_total_memory(second) == names.get_free_memory(second) == 64 * MIB and names.minimum_inference_memory() == 0
        assert names.unet_dtype(first, 1, weight_dtype=torch.float16) == torch.float32 and names.text_encoder_device() == first
        assert names.unet_offload_device() == names.intermediate_device() == HOST == names.unet_inital_load_device(1, torch.float16)
        assert names.get_gpu_device_options() == ["default", "cpu", "gpu:0", "gpu:1"]
        assert names.resolve_gpu_device_option("gpu:1") == second and names.resolve_gpu_device_option("gpu:2") is None
        assert names.get_torch_device_name(first) == "cpu:0 simulated 67.1 MB"
        with pytest.raises(ValueError, match="cuda"):
            names.get_free_memory(torch.device("cuda", 3))


@pytest.mark.parametrize(
    ("flag", "state"),
    [("lowvram", VRAMState.LOW_VRAM), ("novram", VRAMState.NO_VRAM), ("highvram", VRAMState.HIGH_VRAM), ("gpu_only", VRAMState.HIGH_VRAM)],
)
def test_memory_flags_set_the_vram_state(flag, state):
    table = DeviceTable(arguments(simulated_vram_mb=1, **{flag: True}))
    assert table.vram_state == state


def test_a_simulated_device_counts_storages_not_tensors():
    device = SimulatedDevice(0, 10_000)
    copy = device.receive(torch.arange(1000, dtype=torch.float32))
    view, parameter = copy[:10].view(2, 5), torch.nn.Parameter(copy, requires_grad=False)
    assert device.used_bytes() == 4000 and device.free_bytes() == 6000
    del copy, parameter
    assert device.used_bytes() == 4000, "a view keeps the storage"
    assert view[1, 4] == 9
    with pytest.raises(torch.OutOfMemoryError, match="4000 of 10000"):
        device.receive(torch.zeros(1501))
    del view
    gc.collect()
    assert device.used_bytes() == 0 and device.peak_bytes() == 4000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool], ids=str)
def test_a_simulated_device_keeps_every_dtype_exactly(dtype):
    device = SimulatedDevice(0, MIB)
    source = torch.randint(0, 2, (3, 5, 7)).to(dtype)
    for tensor in (source, source.transpose(0, 2), source[:, :0], source[0, 0, 0]):
        assert torch.equal(device.receive(tensor).view(-1).view(torch.uint8), tensor.contiguous().view(-1).view(torch.uint8))


def test_a_simulated_device_is_counted_right_from_many_threads():
    device = SimulatedDevice(0, 64 * MIB)

    def work():
        for size in range(1, 200):
            device.receive(torch.zeros(size))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert device.used_bytes() == 0
    with pytest.raises(ValueError, match="0 bytes"):
        SimulatedDevice(0, 0)


def test_the_state_of_the_process_is_made_once_and_can_be_replaced():
    with management() as manager:
        assert model_management.manager() is manager is model_management.manager()
        with management(MIB) as inner:
            assert model_management.manager() is inner
        assert model_management.manager() is manager
    with pytest.raises(AttributeError, match="no_such_name"):
        model_management.no_such_name  # noqa: B018


def test_casting_copies_only_when_needed():
    tensor = torch.ones(4)
    assert model_management.cast_to(tensor, torch.float32, HOST) is tensor
    assert model_management.cast_to(tensor, copy=True) is not tensor
    assert model_management.cast_to_device(tensor, HOST, torch.float16).dtype == torch.float16
    moved = torch.empty(4)
    assert model_management.cast_to(tensor, None, torch.device("cpu", 0), r=moved) is moved and torch.equal(moved, tensor)


def test_interruption_is_consumed_once():
    model_management.interrupt_current_processing()
    assert model_management.processing_interrupted()
    with pytest.raises(InterruptProcessingException):
        model_management.throw_exception_if_processing_interrupted()
    assert not model_management.processing_interrupted()
    assert model_management.InterruptProcessingException is InterruptProcessingException


def test_out_of_memory_is_distinguished_from_other_errors():
    assert model_management.is_oom(model_management.OOM_EXCEPTION("x")) and not model_management.is_oom(RuntimeError("out of memory"))
    model_management.raise_non_oom(model_management.OOM_EXCEPTION("x"))
    with pytest.raises(KeyError):
        model_management.raise_non_oom(KeyError())


def test_the_pin_ledger_stays_within_its_budget(monkeypatch):
    registered = []
    runtime = type(
        "Runtime",
        (),
        {
            "cudaHostRegister": staticmethod(lambda address, size, flags: registered.append(size) or 0),
            "cudaHostUnregister": staticmethod(lambda address: 0),
        },
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    ledger, (one, two, three) = PinLedger(900), (torch.zeros(100) for _ in range(3))
    assert [ledger.pin(one), ledger.pin(one), ledger.pin(two), ledger.pin(three)] == [True, False, True, False]
    assert ledger.total_bytes() == 800 and ledger.unpin(one) and not ledger.unpin(one) and ledger.pin(three)
    assert not PinLedger(0).pin(one) and registered == [400, 400, 400]


def test_archived_dtypes_are_noted_beside_the_weights():
    module = torch.nn.Linear(2, 2).half()
    model_management.archive_model_dtypes(module)
    assert module.weight_comfy_model_dtype == torch.float16


def test_host_memory_is_asked_from_the_registered_owner():
    try:
        assert memory_management.extra_ram_release(5) == 0
        memory_management.set_ram_cache_release_state(lambda target, free_active=False: (target, free_active), 2.5)
        assert memory_management.extra_ram_release(7, free_active=True) == (7, True) and memory_management.RAM_CACHE_HEADROOM == 2
    finally:
        memory_management.set_ram_cache_release_state(None, 0)
    assert memory_management.extra_ram_release_callback is None


def test_modules_are_pinned_whole(monkeypatch):
    asked = []
    monkeypatch.setattr(model_management, "pin_memory", lambda tensor: asked.append(tensor) or len(asked) == 2)
    module = torch.nn.Linear(2, 2)
    assert pinned_memory.pin_memory(module) and asked == [module.weight, module.bias]
    with management():
        assert not pinned_memory.unpin_memory(module)

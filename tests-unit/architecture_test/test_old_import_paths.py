"""Where ComfyUI keeps names that node packs import, those stay importable, wherever the code behind them lives.

The table is written from what public packs import, as far as this server has it; a name is added with the code that brings it.
"""

import importlib

NAMES: dict[str, str] = {
    "server": "PromptServer BinaryEventTypes web uuid",
    "protocol": "BinaryEventTypes",
    "execution": (
        "validate_prompt PromptQueue PromptExecutor get_input_data get_output_data get_output_from_returns _async_map_node_over_list "
        "map_node_over_list CacheType CacheSet IsChangedCache CacheEntry ExecutionResult SENSITIVE_EXTRA_DATA_KEYS full_type_name "
        "format_value MAXIMUM_HISTORY_SIZE execute DuplicateNodeError resolve_map_node_over_list_results merge_result_data "
        "DynamicPrompt ExecutionBlocker ExecutionList GraphBuilder is_link get_input_info get_progress_state"
    ),
    "nodes": (
        "NODE_CLASS_MAPPINGS NODE_DISPLAY_NAME_MAPPINGS EXTENSION_WEB_DIRS LOADED_MODULE_DIRS MAX_RESOLUTION before_node_execution "
        "interrupt_processing common_ksampler load_custom_node init_extra_nodes init_external_custom_nodes init_builtin_extra_nodes "
        "get_module_name KSampler KSamplerAdvanced VAEDecode VAEEncode VAEDecodeTiled VAEEncodeForInpaint CLIPTextEncode "
        "CheckpointLoaderSimple LoraLoader LoraLoaderModelOnly ControlNetApply ControlNetApplyAdvanced ControlNetLoader "
        "EmptyLatentImage LatentUpscale LatentUpscaleBy SaveImage PreviewImage LoadImage LoadImageMask ConditioningConcat "
        "ConditioningCombine ConditioningSetMask ConditioningSetArea ConditioningZeroOut ConditioningSetTimestepRange CLIPSetLastLayer "
        "UNETLoader CLIPLoader DualCLIPLoader VAELoader ImageScale ImageScaleBy ImageInvert ImageBatch ImagePadForOutpaint EmptyImage "
        "SetLatentNoiseMask LatentComposite LatentFromBatch RepeatLatentBatch SaveLatent LoadLatent"
    ),
    "folder_paths": (
        "base_path models_dir folder_names_and_paths supported_pt_extensions output_directory input_directory temp_directory "
        "user_directory get_output_directory get_input_directory get_temp_directory get_user_directory set_output_directory "
        "set_input_directory set_temp_directory set_user_directory get_folder_paths get_filename_list get_full_path "
        "get_full_path_or_raise add_model_folder_path map_legacy get_save_image_path annotated_filepath get_annotated_filepath "
        "exists_annotated_filepath filter_files_extensions filter_files_content_types recursive_search get_input_subfolders "
        "get_directory_by_type get_system_user_directory get_public_user_directory cache_helper filename_list_cache "
        "extension_mimetypes_cache"
    ),
    "latent_preview": (
        "get_previewer prepare_callback preview_to_image set_preview_method default_preview_method MAX_PREVIEW_RESOLUTION "
        "LatentPreviewer TAESDPreviewerImpl TAEHVPreviewerImpl Latent2RGBPreviewer"
    ),
    "node_helpers": (
        "conditioning_set_values conditioning_set_values_with_timestep_range pillow hasher string_to_torch_dtype image_alpha_fix"
    ),
    "comfyui_version": "__version__",
    "hook_breaker_ac10a0": "save_functions restore_functions",
    "comfy_execution.graph": (
        "ExecutionBlocker DynamicPrompt TopologicalSort ExecutionList get_input_info DependencyCycleError NodeInputError "
        "NodeNotFoundError is_link"
    ),
    "comfy_execution.graph_utils": "GraphBuilder Node is_link add_graph_prefix ExecutionBlocker",
    "comfy_execution.caching": (
        "CacheKeySet CacheKeySetID CacheKeySetInputSignature Unhashable to_hashable include_unique_id_in_input BasicCache "
        "HierarchicalCache NullCache LRUCache RAMPressureCache"
    ),
    "comfy_execution.progress": (
        "get_progress_state ProgressHandler ProgressRegistry add_progress_handler reset_progress_state NodeState NodeProgressState "
        "WebUIProgressHandler"
    ),
    "comfy_execution.utils": "get_executing_context CurrentNodeContext ExecutionContext",
    "comfy_execution.validation": "validate_node_input",
    "comfy_execution.jobs": (
        "JobStatus is_previewable get_outputs_summary has_3d_extension apply_sorting normalize_queue_item normalize_history_item "
        "normalize_output_item normalize_outputs get_job get_all_jobs"
    ),
    "comfy_execution.cache_provider": (
        "CacheProvider CacheContext CacheValue register_cache_provider unregister_cache_provider _get_cache_providers "
        "_has_cache_providers _clear_cache_providers _canonicalize _serialize_cache_key _contains_self_unequal _estimate_value_size"
    ),
    "app.logger": "get_logs on_flush setup_logger",
    "app.frontend_management": "FrontendManager",
    "app.user_manager": "UserManager",
    "app.app_settings": "AppSettings",
    "app.custom_node_manager": "CustomNodeManager",
    "app.model_manager": "ModelFileManager",
    "app.node_replace_manager": "NodeReplaceManager",
    "app.subgraph_manager": "SubgraphManager",
    "utils.extra_config": "load_extra_path_config",
    "utils.install_util": "get_missing_requirements_message requirements_path",
    "utils.json_util": "merge_json_recursive",
    "middleware.cache_middleware": "cache_control",
    "comfy_api.feature_flags": "SERVER_FEATURE_FLAGS get_connection_feature supports_feature get_server_features",
    "comfy_api.latest": "ComfyAPI ComfyAPISync Input InputImpl Types Caching ComfyExtension io IO ui UI",
    "comfy_api.v0_0_1": "ComfyAPI ComfyAPISync Input InputImpl Types io ui",
    "comfy_api.v0_0_2": "ComfyAPI ComfyAPISync Input InputImpl Types io ui",
    "comfy_api.version_list": "supported_versions",
    "comfy_api.internal": "ComfyAPIBase ComfyAPIWithVersion register_versions get_all_versions",
    "comfy_api.internal.async_to_sync": "create_sync_class",
    "comfy_api.internal.singleton": "ProxiedSingleton SingletonMetaclass",
    "comfy_api.input": "ImageInput AudioInput MaskInput LatentInput VideoInput",
    "comfy_api.input.basic_types": "ImageInput AudioInput",
    "comfy_api.input.video_types": "VideoInput",
    "comfy_api.input_impl": "VideoFromFile VideoFromComponents",
    "comfy_api.input_impl.video_types": "VideoFromFile VideoFromComponents",
    "comfy_api.util": "VideoCodec VideoContainer VideoComponents",
    "comfy_api.util.video_types": "VideoCodec VideoContainer VideoComponents",
    "comfy_api.torch_helpers": "set_torch_compile_wrapper",
    "comfy.options": "enable_args_parsing",
    "comfy.cli_args": "args LatentPreviewMethod parser PerformanceFeature",
    "comfy.model_management": (
        "get_torch_device unet_offload_device vae_device vae_offload_device vae_dtype text_encoder_device text_encoder_offload_device "
        "text_encoder_dtype intermediate_device intermediate_dtype unet_dtype unet_manual_cast load_models_gpu load_model_gpu "
        "free_memory get_free_memory get_total_memory unload_all_models soft_empty_cache cleanup_models cleanup_models_gc "
        "current_loaded_models LoadedModel loaded_models minimum_inference_memory maximum_vram_for_weights module_size dtype_size "
        "cast_to cast_to_device device_supports_non_blocking pick_weight_dtype supports_cast supports_dtype should_use_fp16 "
        "should_use_bf16 supports_fp8_compute is_nvidia is_amd is_intel_xpu is_directml_enabled is_device_cpu is_device_cuda "
        "is_device_mps cpu_mode mps_mode xformers_enabled pytorch_attention_enabled sage_attention_enabled flash_attention_enabled "
        "force_upcast_attention_dtype synchronize VRAMState CPUState vram_state set_vram_to cpu_state total_vram total_ram "
        "lowvram_available DISABLE_SMART_MEMORY XFORMERS_IS_AVAILABLE XFORMERS_VERSION OOM_EXCEPTION is_oom "
        "InterruptProcessingException interrupt_current_processing processing_interrupted throw_exception_if_processing_interrupted "
        "get_torch_device_name archive_model_dtypes pin_memory unpin_memory lora_compute_dtype extended_fp16_support in_training"
    ),
    "comfy.utils": (
        "load_torch_file save_torch_file calculate_parameters weight_dtype state_dict_key_replace state_dict_prefix_replace "
        "safetensors_header repeat_to_batch_size resize_to_batch_size convert_sd_to get_attr set_attr set_attr_param copy_to_param "
        "resolve_attr common_upscale bislerp lanczos tiled_scale tiled_scale_multidim get_tiled_scale_steps ProgressBar "
        "set_progress_bar_enabled set_progress_bar_global_hook PROGRESS_BAR_ENABLED PROGRESS_BAR_HOOK model_trange reshape_mask "
        "string_to_seed pack_latents unpack_latents detect_layer_quantization convert_old_quants"
    ),
    "comfy.sd": (
        "CLIP VAE CLIPType TEModel load_checkpoint_guess_config load_state_dict_guess_config load_diffusion_model "
        "load_diffusion_model_state_dict load_unet load_clip load_text_encoder_state_dicts load_lora_for_models "
        "load_bypass_lora_for_models load_checkpoint save_checkpoint"
    ),
    "comfy.samplers": (
        "KSampler KSAMPLER Sampler CFGGuider sampler_object ksampler SAMPLER_NAMES KSAMPLER_NAMES SCHEDULER_NAMES SCHEDULER_HANDLERS "
        "SchedulerHandler calculate_sigmas sampling_function calc_cond_batch calc_cond_uncond_batch cfg_function get_area_and_mult "
        "sample process_conds encode_model_conds KSamplerX0Inpaint simple_scheduler ddim_scheduler normal_scheduler beta_scheduler "
        "linear_quadratic_schedule kl_optimal_scheduler"
    ),
    "comfy.sample": "prepare_noise fix_empty_latent_channels sample sample_custom",
    "comfy.sampler_helpers": (
        "prepare_mask convert_cond get_additional_models cleanup_additional_models prepare_sampling cleanup_models "
        "prepare_model_patcher get_models_from_cond"
    ),
    "comfy.model_patcher": (
        "ModelPatcher set_model_options_patch_replace set_model_options_post_cfg_function set_model_options_pre_cfg_function "
        "create_model_options_clone wipe_lowvram_weight get_key_weight string_to_seed LowVramPatch CoreModelPatcher "
        "ModelPatcherDynamic"
    ),
    "comfy.patcher_extension": (
        "CallbacksMP WrappersMP WrapperExecutor PatcherInjection add_wrapper add_wrapper_with_key get_all_wrappers add_callback "
        "add_callback_with_key copy_nested_dicts merge_nested_dicts"
    ),
    "comfy.model_base": "ModelType model_sampling BaseModel SDXL SDXLRefiner",
    "comfy.model_sampling": (
        "EPS V_PREDICTION EDM CONST X0 IMG_TO_IMG IMG_TO_IMG_FLOW ModelSamplingDiscrete ModelSamplingDiscreteEDM "
        "ModelSamplingContinuousEDM ModelSamplingContinuousV ModelSamplingDiscreteFlow ModelSamplingFlux "
        "rescale_zero_terminal_snr_sigmas time_snr_shift flux_time_shift"
    ),
    "comfy.ldm.modules.attention": (
        "optimized_attention optimized_attention_masked optimized_attention_for_device attention_basic attention_sub_quad "
        "attention_split attention_pytorch attention_xformers wrap_attn register_attention_function get_attention_function "
        "CrossAttention BasicTransformerBlock SpatialTransformer FeedForward GEGLU default exists"
    ),
    "comfy.ldm.modules.diffusionmodules.openaimodel": (
        "UNetModel forward_timestep_embed apply_control TimestepEmbedSequential Timestep ResBlock VideoResBlock Downsample Upsample"
    ),
    "comfy.ldm.modules.diffusionmodules.util": "timestep_embedding make_beta_schedule",
    "comfy.ldm.models.autoencoder": "AutoencoderKL",
    "comfy.ops": (
        "disable_weight_init manual_cast pick_operations cast_bias_weight cast_to_input CastWeightBiasOp scaled_dot_product_attention"
    ),
    "comfy.controlnet": "ControlBase ControlNet StrengthType broadcast_image_to load_controlnet load_controlnet_state_dict",
    "comfy.lora": "load_lora model_lora_keys_clip model_lora_keys_unet calculate_weight pad_tensor_to_shape",
    "comfy.weight_adapter": "adapters WeightAdapterBase",
    "comfy.lora_convert": "convert_lora",
    "comfy.conds": "CONDRegular CONDNoiseShape CONDCrossAttn CONDConstant CONDList",
    "comfy.hooks": (
        "Hook HookGroup HookKeyframe HookKeyframeGroup WeightHook ObjectPatchHook TransformerOptionsHook InjectionsHook EnumHookType "
        "EnumHookMode EnumHookScope create_hook_lora"
    ),
    "comfy.latent_formats": "LatentFormat SD15 SDXL",
    "comfy.model_detection": "detect_unet_config model_config_from_unet unet_prefix_from_state_dict count_blocks",
    "comfy.supported_models": "SD15 SDXL models",
    "comfy.supported_models_base": "BASE ClipTarget",
    "comfy.sd1_clip": (
        "SDClipModel SD1ClipModel SDTokenizer SD1Tokenizer token_weights escape_important unescape_important load_embed "
        "expand_directory_list gen_empty_tokens ClipTokenWeightEncoder"
    ),
    "comfy.sdxl_clip": "SDXLClipModel SDXLClipG SDXLTokenizer",
    "comfy.k_diffusion.sampling": (
        "sample_euler sample_euler_ancestral sample_heun sample_dpm_2 sample_lms sample_dpmpp_2m sample_dpmpp_sde sample_lcm "
        "get_sigmas_karras get_sigmas_exponential get_sigmas_polyexponential get_sigmas_vp get_sigmas_laplace append_zero to_d "
        "get_ancestral_step default_noise_sampler BrownianTreeNoiseSampler"
    ),
    "comfy.extra_samplers.uni_pc": "sample_unipc",
    "comfy.taesd.taesd": "TAESD",
    "comfy.cldm.cldm": "ControlNet",
    "comfy.float": "stochastic_rounding",
    "comfy.memory_management": "",
    "comfy.pinned_memory": "",
    "comfy.comfy_types": "IO InputTypeDict ComfyNodeABC CheckLazyMixin FileLocator",
    "comfy.comfy_types.node_typing": "IO InputTypeDict ComfyNodeABC CheckLazyMixin",
    "comfy_extras.nodes_custom_sampler": (
        "Noise_EmptyNoise Noise_RandomNoise Guider_Basic SamplerCustom SamplerCustomAdvanced BasicScheduler KSamplerSelect BasicGuider "
        "CFGGuider RandomNoise SplitSigmas"
    ),
    "comfy_extras.nodes_mask": "MaskComposite composite MaskToImage GrowMask",
    "comfy_extras.nodes_post_processing": "Blend Blur Sharpen ImageScaleToTotalPixels",
    "comfy_extras.nodes_model_advanced": "ModelSamplingDiscreteDistilled RescaleCFG ModelSamplingDiscrete ModelSamplingFlux",
    "comfy_extras.nodes_images": "ImageCrop",
    "comfy_extras.nodes_rebatch": "LatentRebatch",
    "comfy_extras.nodes_freelunch": "FreeU",
    "comfy_extras.nodes_clip_sdxl": "CLIPTextEncodeSDXL",
    "comfy_extras.chainner_models.model_loading": "load_state_dict",
}


def test_names_are_importable_where_comfyui_has_them():
    missing = []
    for module_name, names in NAMES.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            missing.append(f"{module_name}: {error}")
            continue
        missing += [f"{module_name}.{name}" for name in names.split() if not hasattr(module, name)]
    assert not missing


def test_old_places_of_the_core_give_the_same_objects_as_their_homes():
    import comfy_execution.caching as caching
    import comfy_execution.graph as graph
    import comfy_execution.progress as progress
    import execution
    from comfy_execution.local_caches.hierarchical import HierarchicalCache
    from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
    from comfy_execution.nodes_graph.execution_list import ExecutionList
    from comfy_execution.progress_board.state import ProgressRegistry

    assert graph.DynamicPrompt is execution.DynamicPrompt is DynamicPrompt
    assert graph.ExecutionList is execution.ExecutionList is ExecutionList
    assert caching.HierarchicalCache is HierarchicalCache and progress.ProgressRegistry is ProgressRegistry

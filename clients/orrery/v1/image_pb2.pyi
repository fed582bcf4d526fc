from orrery.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DiffusionScheduler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIFFUSION_SCHEDULER_UNSPECIFIED: _ClassVar[DiffusionScheduler]
    DIFFUSION_SCHEDULER_DDIM: _ClassVar[DiffusionScheduler]
    DIFFUSION_SCHEDULER_EULER: _ClassVar[DiffusionScheduler]
    DIFFUSION_SCHEDULER_EULER_ANCESTRAL: _ClassVar[DiffusionScheduler]
    DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M: _ClassVar[DiffusionScheduler]

class PreviewKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREVIEW_KIND_UNSPECIFIED: _ClassVar[PreviewKind]
    PREVIEW_KIND_DECODED: _ClassVar[PreviewKind]
    PREVIEW_KIND_LATENT: _ClassVar[PreviewKind]
DIFFUSION_SCHEDULER_UNSPECIFIED: DiffusionScheduler
DIFFUSION_SCHEDULER_DDIM: DiffusionScheduler
DIFFUSION_SCHEDULER_EULER: DiffusionScheduler
DIFFUSION_SCHEDULER_EULER_ANCESTRAL: DiffusionScheduler
DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M: DiffusionScheduler
PREVIEW_KIND_UNSPECIFIED: PreviewKind
PREVIEW_KIND_DECODED: PreviewKind
PREVIEW_KIND_LATENT: PreviewKind

class PreviewOptions(_message.Message):
    __slots__ = ("every_num_steps", "kind")
    EVERY_NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    every_num_steps: int
    kind: PreviewKind
    def __init__(self, every_num_steps: _Optional[int] = ..., kind: _Optional[_Union[PreviewKind, str]] = ...) -> None: ...

class DiffusionParameters(_message.Message):
    __slots__ = ("negative_prompt", "n", "width", "height", "num_steps", "guidance_scale", "guidance_rescale", "scheduler", "eta", "karras_sigmas", "seed", "previews", "rank_by_similarity", "top_n")
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_RESCALE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    ETA_FIELD_NUMBER: _ClassVar[int]
    KARRAS_SIGMAS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    RANK_BY_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    negative_prompt: str
    n: int
    width: int
    height: int
    num_steps: int
    guidance_scale: float
    guidance_rescale: float
    scheduler: DiffusionScheduler
    eta: float
    karras_sigmas: bool
    seed: int
    previews: PreviewOptions
    rank_by_similarity: bool
    top_n: int
    def __init__(self, negative_prompt: _Optional[str] = ..., n: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., num_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., guidance_rescale: _Optional[float] = ..., scheduler: _Optional[_Union[DiffusionScheduler, str]] = ..., eta: _Optional[float] = ..., karras_sigmas: _Optional[bool] = ..., seed: _Optional[int] = ..., previews: _Optional[_Union[PreviewOptions, _Mapping]] = ..., rank_by_similarity: _Optional[bool] = ..., top_n: _Optional[int] = ...) -> None: ...

class ImageServiceGenerateRequest(_message.Message):
    __slots__ = ("model", "prompt", "parameters")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    parameters: DiffusionParameters
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., parameters: _Optional[_Union[DiffusionParameters, _Mapping]] = ...) -> None: ...

class EditRequest(_message.Message):
    __slots__ = ("model", "prompt", "image", "mask", "strength", "parameters")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    image: _common_pb2.ImageContent
    mask: _common_pb2.ImageContent
    strength: float
    parameters: DiffusionParameters
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., image: _Optional[_Union[_common_pb2.ImageContent, _Mapping]] = ..., mask: _Optional[_Union[_common_pb2.ImageContent, _Mapping]] = ..., strength: _Optional[float] = ..., parameters: _Optional[_Union[DiffusionParameters, _Mapping]] = ...) -> None: ...

class ImageProgress(_message.Message):
    __slots__ = ("image_index", "step", "num_steps")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    step: int
    num_steps: int
    def __init__(self, image_index: _Optional[int] = ..., step: _Optional[int] = ..., num_steps: _Optional[int] = ...) -> None: ...

class LatentTensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ImagePreview(_message.Message):
    __slots__ = ("image_index", "step", "png", "latent")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    LATENT_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    step: int
    png: bytes
    latent: LatentTensor
    def __init__(self, image_index: _Optional[int] = ..., step: _Optional[int] = ..., png: _Optional[bytes] = ..., latent: _Optional[_Union[LatentTensor, _Mapping]] = ...) -> None: ...

class ImageRecipe(_message.Message):
    __slots__ = ("seed", "num_steps", "guidance_scale", "guidance_rescale", "scheduler", "eta", "karras_sigmas", "strength")
    SEED_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_RESCALE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    ETA_FIELD_NUMBER: _ClassVar[int]
    KARRAS_SIGMAS_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    seed: int
    num_steps: int
    guidance_scale: float
    guidance_rescale: float
    scheduler: DiffusionScheduler
    eta: float
    karras_sigmas: bool
    strength: float
    def __init__(self, seed: _Optional[int] = ..., num_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., guidance_rescale: _Optional[float] = ..., scheduler: _Optional[_Union[DiffusionScheduler, str]] = ..., eta: _Optional[float] = ..., karras_sigmas: _Optional[bool] = ..., strength: _Optional[float] = ...) -> None: ...

class GeneratedImage(_message.Message):
    __slots__ = ("image_index", "png", "width", "height", "recipe", "similarity")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    png: bytes
    width: int
    height: int
    recipe: ImageRecipe
    similarity: float
    def __init__(self, image_index: _Optional[int] = ..., png: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., recipe: _Optional[_Union[ImageRecipe, _Mapping]] = ..., similarity: _Optional[float] = ...) -> None: ...

class ImagesDone(_message.Message):
    __slots__ = ("queue_ns", "denoise_ns", "decode_ns", "rank_ns", "total_ns", "prompt_tokens")
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_NS_FIELD_NUMBER: _ClassVar[int]
    DECODE_NS_FIELD_NUMBER: _ClassVar[int]
    RANK_NS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    queue_ns: int
    denoise_ns: int
    decode_ns: int
    rank_ns: int
    total_ns: int
    prompt_tokens: int
    def __init__(self, queue_ns: _Optional[int] = ..., denoise_ns: _Optional[int] = ..., decode_ns: _Optional[int] = ..., rank_ns: _Optional[int] = ..., total_ns: _Optional[int] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class ImageServiceGenerateResponse(_message.Message):
    __slots__ = ("request_id", "model", "progress", "preview", "image", "done")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    progress: ImageProgress
    preview: ImagePreview
    image: GeneratedImage
    done: ImagesDone
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., progress: _Optional[_Union[ImageProgress, _Mapping]] = ..., preview: _Optional[_Union[ImagePreview, _Mapping]] = ..., image: _Optional[_Union[GeneratedImage, _Mapping]] = ..., done: _Optional[_Union[ImagesDone, _Mapping]] = ...) -> None: ...

class EditResponse(_message.Message):
    __slots__ = ("request_id", "model", "progress", "preview", "image", "done")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    progress: ImageProgress
    preview: ImagePreview
    image: GeneratedImage
    done: ImagesDone
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., progress: _Optional[_Union[ImageProgress, _Mapping]] = ..., preview: _Optional[_Union[ImagePreview, _Mapping]] = ..., image: _Optional[_Union[GeneratedImage, _Mapping]] = ..., done: _Optional[_Union[ImagesDone, _Mapping]] = ...) -> None: ...

class GetImageModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetImageModelResponse(_message.Message):
    __slots__ = ("model", "aliases", "dtype", "weight_hash", "created_s", "prediction_type", "max_prompt_tokens", "size_multiple", "default_width", "default_height", "max_width", "max_height", "max_pixels", "default_num_steps", "max_num_steps", "default_guidance_scale", "max_guidance_scale", "default_scheduler", "schedulers", "max_n", "loras", "can_rank", "max_image_bytes", "max_image_pixels", "default_strength", "default_preview_every_num_steps", "default_karras_sigmas")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_HASH_FIELD_NUMBER: _ClassVar[int]
    CREATED_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SIZE_MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_WIDTH_FIELD_NUMBER: _ClassVar[int]
    MAX_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    MAX_GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULERS_FIELD_NUMBER: _ClassVar[int]
    MAX_N_FIELD_NUMBER: _ClassVar[int]
    LORAS_FIELD_NUMBER: _ClassVar[int]
    CAN_RANK_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PREVIEW_EVERY_NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_KARRAS_SIGMAS_FIELD_NUMBER: _ClassVar[int]
    model: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    dtype: str
    weight_hash: str
    created_s: int
    prediction_type: str
    max_prompt_tokens: int
    size_multiple: int
    default_width: int
    default_height: int
    max_width: int
    max_height: int
    max_pixels: int
    default_num_steps: int
    max_num_steps: int
    default_guidance_scale: float
    max_guidance_scale: float
    default_scheduler: DiffusionScheduler
    schedulers: _containers.RepeatedScalarFieldContainer[DiffusionScheduler]
    max_n: int
    loras: _containers.RepeatedScalarFieldContainer[str]
    can_rank: bool
    max_image_bytes: int
    max_image_pixels: int
    default_strength: float
    default_preview_every_num_steps: int
    default_karras_sigmas: bool
    def __init__(self, model: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., dtype: _Optional[str] = ..., weight_hash: _Optional[str] = ..., created_s: _Optional[int] = ..., prediction_type: _Optional[str] = ..., max_prompt_tokens: _Optional[int] = ..., size_multiple: _Optional[int] = ..., default_width: _Optional[int] = ..., default_height: _Optional[int] = ..., max_width: _Optional[int] = ..., max_height: _Optional[int] = ..., max_pixels: _Optional[int] = ..., default_num_steps: _Optional[int] = ..., max_num_steps: _Optional[int] = ..., default_guidance_scale: _Optional[float] = ..., max_guidance_scale: _Optional[float] = ..., default_scheduler: _Optional[_Union[DiffusionScheduler, str]] = ..., schedulers: _Optional[_Iterable[_Union[DiffusionScheduler, str]]] = ..., max_n: _Optional[int] = ..., loras: _Optional[_Iterable[str]] = ..., can_rank: _Optional[bool] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., default_strength: _Optional[float] = ..., default_preview_every_num_steps: _Optional[int] = ..., default_karras_sigmas: _Optional[bool] = ...) -> None: ...

class ImageServiceGetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ImageServiceGetLoadResponse(_message.Message):
    __slots__ = ("num_running", "num_running_images", "num_waiting_images", "max_running_images", "num_decoding_images", "num_steps_done", "num_images_done", "resident_bytes", "state_bytes", "process_id")
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_WAITING_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_DECODING_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_DONE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    num_running: int
    num_running_images: int
    num_waiting_images: int
    max_running_images: int
    num_decoding_images: int
    num_steps_done: int
    num_images_done: int
    resident_bytes: int
    state_bytes: int
    process_id: int
    def __init__(self, num_running: _Optional[int] = ..., num_running_images: _Optional[int] = ..., num_waiting_images: _Optional[int] = ..., max_running_images: _Optional[int] = ..., num_decoding_images: _Optional[int] = ..., num_steps_done: _Optional[int] = ..., num_images_done: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., state_bytes: _Optional[int] = ..., process_id: _Optional[int] = ...) -> None: ...

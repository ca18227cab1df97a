"""What the engine uses of vLLM. The only module that imports vLLM: it sets the environment first."""

import os

from actors.engines.vllm_arguments import BEFORE_IMPORT

os.environ.update(BEFORE_IMPORT)

from vllm import AsyncEngineArgs as AsyncEngineArgs
from vllm import SamplingParams as SamplingParams
from vllm.config.reasoning import ReasoningConfig as ReasoningConfig
from vllm.exceptions import VLLMValidationError as VLLMValidationError
from vllm.lora.request import LoRARequest as LoRARequest
from vllm.platforms import current_platform as current_platform
from vllm.renderers import ChatParams as ChatParams
from vllm.sampling_params import RequestOutputKind as RequestOutputKind
from vllm.sampling_params import StructuredOutputsParams as StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM as AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError as EngineDeadError

"""`TTSService` and `TTSGPUProfile` v1alpha1 in pydantic: the one source of their shape, their rules and the CRDs."""

from ttsfleet_operator.api.engine import EngineOverrides, ServerOptions
from ttsfleet_operator.api.hardware import GPUSelector, HardwareClass
from ttsfleet_operator.api.manifest import load_services, parse_service
from ttsfleet_operator.api.service import API_VERSION, KIND, TTSService, TTSServiceSpec

__all__ = [
    "API_VERSION",
    "KIND",
    "EngineOverrides",
    "GPUSelector",
    "HardwareClass",
    "ServerOptions",
    "TTSService",
    "TTSServiceSpec",
    "load_services",
    "parse_service",
]

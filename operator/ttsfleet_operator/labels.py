"""Labels and annotations by which children are found and told apart. Data; every part of the operator may know it."""

from __future__ import annotations

NAME_LABEL = "app.kubernetes.io/name"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
SERVICE_LABEL = "ttsfleet.dev/service"
CLASS_LABEL = "ttsfleet.dev/class"
RETAIN_ANNOTATION = "ttsfleet.dev/retain"

APPLICATION = "ttsfleet-runtime"
MANAGER = "ttsfleet"

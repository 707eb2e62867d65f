{{/*
Exactly the verbs that the operator uses; none on secrets, roles or pods/exec. Server-side apply that creates an object
needs create and patch.
*/}}

{{/* In every watched namespace. */}}
{{- define "ttsfleet.namespacedRules" -}}
- apiGroups: [ttsfleet.dev]
  resources: [ttsservices]
  verbs: [list, watch]
- apiGroups: [ttsfleet.dev]
  resources: [ttsservices/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
# Claims hold data: they go with their TTSService, or stay.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.serviceMonitors.enabled }}
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, create, patch, delete]
{{- end }}
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
{{- end -}}

{{/* What no namespace holds. */}}
{{- define "ttsfleet.clusterRules" -}}
- apiGroups: [ttsfleet.dev]
  resources: [ttsgpuprofiles]
  verbs: [list, watch]
{{- if .Values.rbac.nodes }}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}
{{- end -}}

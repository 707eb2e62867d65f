{{/* The operator's settings: everything that it reads from its environment. Empty ones are left out. */}}
{{- define "ttsfleet.operatorEnv" -}}
{{- $settings := list
  (list "TTSFLEET_RUNTIME_IMAGE" (include "ttsfleet.image" (list . .Values.runtime.image)))
  (list "TTSFLEET_IMAGE_PULL_POLICY" .Values.runtime.image.pullPolicy)
  (list "TTSFLEET_IMAGE_PULL_SECRETS" (join "," .Values.runtime.imagePullSecrets))
  (list "TTSFLEET_WATCH_NAMESPACES" (join "," .Values.watchNamespaces))
  (list "TTSFLEET_READ_NODES" (toString .Values.rbac.nodes))
  (list "TTSFLEET_SERVICE_MONITORS" (toString .Values.serviceMonitors.enabled))
  (list "TTSFLEET_CLUSTER_DOMAIN" .Values.clusterDomain)
  (list "TTSFLEET_HUGGING_FACE_ENDPOINT" .Values.mirrors.huggingFace)
  (list "TTSFLEET_MODEL_SCOPE_ENDPOINT" .Values.mirrors.modelScope)
  (list "TTSFLEET_HTTP_PROXY" .Values.proxy.http)
  (list "TTSFLEET_HTTPS_PROXY" .Values.proxy.https)
  (list "TTSFLEET_NO_PROXY" .Values.proxy.noProxy)
  (list "TTSFLEET_CA_BUNDLE_CONFIG_MAP" .Values.caBundle.configMapName)
  (list "TTSFLEET_CA_BUNDLE_KEY" (ternary .Values.caBundle.key "" (ne .Values.caBundle.configMapName "")))
  (list "TTSFLEET_DENIED_NETWORKS" (join "," .Values.networkPolicy.apiServer.cidrs))
  (list "TTSFLEET_LEADER_ELECTION" (toString .Values.leaderElection.enabled))
  (list "TTSFLEET_WORKERS" (toString .Values.reconcile.workers))
  (list "TTSFLEET_RESYNC_SECONDS" (toString .Values.reconcile.resyncSeconds))
  (list "TTSFLEET_PROBE_SECONDS" (toString .Values.reconcile.probeSeconds))
  (list "TTSFLEET_LOG_LEVEL" .Values.logging.level)
  (list "TTSFLEET_LOG_FORMAT" .Values.logging.format)
-}}
env:
- name: POD_NAME
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.name
- name: TTSFLEET_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- range $settings }}
{{- if last . }}
- name: {{ first . }}
  value: {{ last . | quote }}
{{- end }}
{{- end }}
{{- end -}}

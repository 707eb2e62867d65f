{{/* Names and labels. Every name is at most 63 characters, since some become label values. */}}

{{- define "ttsfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Cluster-scoped objects of several namespaced installations must not collide. */}}
{{- define "ttsfleet.clusterName" -}}
{{- if .Values.watchNamespaces -}}
{{- printf "%s-%s" .Release.Namespace (include "ttsfleet.fullname" .) -}}
{{- else -}}
{{- include "ttsfleet.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "ttsfleet.selectorLabels" -}}
app.kubernetes.io/name: ttsfleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of the pod of `helm test`: none of the operator's, whose Service and policies must not see it. */}}
{{- define "ttsfleet.testLabels" -}}
app.kubernetes.io/name: ttsfleet-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ttsfleet.labels" -}}
{{ include "ttsfleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ttsfleet
{{- end -}}

{{- define "ttsfleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ttsfleet.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* repository:tag, or repository@digest when a digest is given. Argument: list root image */}}
{{- define "ttsfleet.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

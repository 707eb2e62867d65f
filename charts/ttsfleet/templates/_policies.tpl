{{/* The parts that all policies share. */}}
{{- define "ttsfleet.policyMatch" -}}
matchConstraints:
  matchPolicy: Equivalent
  namespaceSelector: {}
  objectSelector: {}
  resourceRules:
  - apiGroups: [ttsfleet.dev]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE]
    resources: [ttsservices]
    scope: Namespaced
matchConditions:
- name: the-spec-changes
  expression: request.operation == 'CREATE' || object.spec != oldObject.spec
{{- end -}}

{{/* A CEL list of strings; the values' schema leaves no quotes or backslashes in them. */}}
{{- define "ttsfleet.celStrings" -}}
[{{ range $index, $text := . }}{{ if $index }}, {{ end }}'{{ $text }}'{{ end }}]
{{- end -}}

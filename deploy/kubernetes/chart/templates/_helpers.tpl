{{- define "ottla.name" -}}
{{- if eq .Release.Name .Chart.Name -}}
{{ .Chart.Name }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "ottla.voters" -}}
{{- $name := include "ottla.name" . -}}
{{- range $node := until (int .Values.controllers) -}}
{{- if $node }},{{ end -}}
{{ $node }}@{{ $name }}-{{ $node }}.{{ $name }}:9093
{{- end -}}
{{- end -}}

{{- define "ottla.advertised" -}}
{{- $name := include "ottla.name" . -}}
INSIDE://$(OTTLA_POD_NAME).{{ $name }}.$(NAMESPACE).svc:9092,CONTROLLER://$(OTTLA_POD_NAME).{{ $name }}.$(NAMESPACE).svc:9093{{ .Values.advertisedListenersMore }}
{{- end -}}

{{/* Name of every object of the operator. */}}
{{- define "trainmaster.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- default (printf "%s-operator" $release) .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that never change: selectors use them. */}}
{{- define "trainmaster.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "trainmaster.labels" -}}
{{ include "trainmaster.selectorLabels" . }}
app.kubernetes.io/part-of: trainmaster
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "trainmaster.serviceAccountName" -}}
{{- default (ternary (include "trainmaster.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{/* Image of the operator: a digest beats a tag. */}}
{{- define "trainmaster.image" -}}
{{- with .Values.operator.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "trainmaster.trainerImage" -}}
{{- default (printf "docker.io/trainmaster/trainer:%s" .Chart.AppVersion) .Values.defaults.image -}}
{{- end }}

{{/* What Pod Security `restricted` asks of a container; the image's own user is a number other than 0. */}}
{{- define "trainmaster.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "trainmaster.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Namespace in which `helm test` runs its job. */}}
{{- define "trainmaster.testNamespace" -}}
{{- .Values.test.namespace | default (first .Values.operator.namespaces) | default .Release.Namespace -}}
{{- end }}

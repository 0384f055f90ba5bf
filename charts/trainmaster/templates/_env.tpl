{{/* Environment of the operator; what is empty is left to the operator's own default. */}}
{{- define "trainmaster.env" -}}
{{- $name := include "trainmaster.name" . -}}
{{- $url := printf "https://%s.%s.svc:%v/v1/progress" $name .Release.Namespace .Values.service.port -}}
{{- $tls := "/etc/trainmaster/tls" -}}
- {name: TRAINMASTER_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: TRAINMASTER_POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: TRAINMASTER_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- $env := list
  (list "NAMESPACES" (join "," .Values.operator.namespaces))
  (list "IMAGE" (include "trainmaster.trainerImage" .))
  (list "STORAGE_URI" .Values.defaults.storage.uri)
  (list "STORAGE_ENDPOINT" .Values.defaults.storage.endpoint)
  (list "STORAGE_REGION" .Values.defaults.storage.region)
  (list "STORAGE_CREDENTIALS_SECRET" .Values.defaults.storage.credentialsSecret)
  (list "DEFAULT_TRACKING" (ternary "" (toJson .Values.defaults.tracking) (empty .Values.defaults.tracking)))
  (list "PROGRESS_URL" $url)
  (list "HTTP_PORT" .Values.metrics.port)
  (list "TLS_SECRET" (printf "%s-tls" $name))
  (list "TLS_FILES" (ternary (printf "%s/ca.crt,%s/tls.crt,%s/tls.key" $tls $tls $tls) "" (ne .Values.tls.existingSecret "")))
  (list "WEBHOOK" (ternary $name "" .Values.webhook.enabled))
  (list "LEASE_NAME" $name)
  (list "LEASE_SECONDS" .Values.operator.leaderElection.leaseSeconds)
  (list "CONCURRENCY" .Values.operator.concurrency)
  (list "QPS" .Values.operator.api.qps)
  (list "BURST" .Values.operator.api.burst)
  (list "RESYNC_SECONDS" .Values.operator.resyncSeconds)
  (list "ALLOW_HOST_PATH" (ternary "1" "" .Values.operator.allowHostPath))
  (list "LOG_FORMAT" .Values.operator.log.format)
  (list "VERBOSE" (ternary "1" "" .Values.operator.log.verbose))
}}
{{- range $env }}
{{- $value := toString (index . 1) }}
{{- if $value }}
- {name: TRAINMASTER_{{ index . 0 }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

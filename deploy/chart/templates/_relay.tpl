{{/* What the relay's pods are found by. */}}
{{- define "outbox.selector" -}}
app.kubernetes.io/name: outbox-relay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "outbox.labels" -}}
{{ include "outbox.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "outbox.metadata" -}}
name: {{ .Release.Name }}-outbox
labels:
  {{- include "outbox.labels" . | nindent 2 }}
{{- end }}

{{/* What every container of ours has: the image, no rights, and nowhere to write. */}}
{{- define "outbox.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "outbox.env" -}}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* The container of a relay. Another chart that depends on this one may use it in a pod of its own. */}}
{{- define "outbox.relay" -}}
name: outbox-relay
{{ include "outbox.container" . }}
args: [relay]
env:
  - name: OUTBOX_HTTP_HOST
    value: 0.0.0.0
  - name: OUTBOX_HTTP_PORT
    value: "8081"
  - name: OUTBOX_SHUTDOWN_GRACE_SECONDS
    value: {{ .Values.shutdownGraceSeconds | quote }}
  {{- include "outbox.env" . | trim | nindent 2 }}
{{- with .Values.secrets }}
envFrom:
  {{- range . }}
  - secretRef: { name: {{ . }} }
  {{- end }}
{{- end }}
ports:
  - { name: probes, containerPort: 8081 }
startupProbe:
  httpGet: { path: /livez, port: probes }
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /livez, port: probes }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- if eq .Values.mode "standalone" }}
readinessProbe:
  httpGet: { path: /readyz, port: probes }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
{{- if .Values.preStopSeconds }}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ .Values.preStopSeconds | quote }}]
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end }}

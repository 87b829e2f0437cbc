{{/* Labels of everything that the chart installs. What the operator makes is managed by `fairlead` instead. */}}
{{- define "fairlead.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* What engines run. */}}
{{- define "fairlead.engineImage" -}}
{{ .Values.engine.image.name | default .Values.image.name }}
{{- end }}

{{/* The operator's user name. */}}
{{- define "fairlead.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:fairlead-operator
{{- end }}

{{/* Pod Security `restricted`, for the operator and the uninstallation. */}}
{{- define "fairlead.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "fairlead.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

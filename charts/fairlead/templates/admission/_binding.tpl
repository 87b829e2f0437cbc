{{/*
The binding of an admission policy: everywhere, and what it finds is denied.
Takes `name` and `root`.
*/}}
{{- define "fairlead.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "fairlead.labels" (dict "name" .name "root" .root) | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}

{{/*
CEL: the token of the request was made for a pod whose name fits. Tokens of pods say so; impersonated accounts do not, unless whoever
impersonates may add `userextras`, which no role of a namespace can allow.
*/}}
{{- define "fairlead.fromPod" -}}
request.userInfo.?extra[?'authentication.kubernetes.io/pod-name'].orValue([]).exists(pod, pod.matches('^{{ . }}$'))
{{- end }}

{{/* CEL: the request says that it comes from the operator. What is for the operator alone asks `isOperator`. */}}
{{- define "fairlead.hasOperatorsName" -}}
request.userInfo.username == '{{ include "fairlead.operatorUser" . }}'
{{- end }}

{{/* CEL: the request comes from the operator. */}}
{{- define "fairlead.isOperator" -}}
({{ include "fairlead.hasOperatorsName" . }} && {{ include "fairlead.fromPod" "fairlead-operator-[-a-z0-9]+" }})
{{- end }}

{{/* CEL: the request comes from the chart's uninstallation. */}}
{{- define "fairlead.isUninstall" -}}
(request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:fairlead-uninstall' && {{ include "fairlead.fromPod" "fairlead-uninstall-[-a-z0-9]+" }})
{{- end }}

{{/* CEL: the request says that it comes from an engine. What is for an engine alone asks `isEngine`. */}}
{{- define "fairlead.hasEnginesName" -}}
request.userInfo.username.matches('^system:serviceaccount:[^:]+:fairlead-engine$')
{{- end }}

{{/* CEL: the request comes from the engine of the request's namespace. */}}
{{- define "fairlead.isEngine" -}}
(request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':fairlead-engine' && {{ include "fairlead.fromPod" "fairlead-engine-[0-9]+" }})
{{- end }}

{{/* CEL: the request comes from the cluster's own controllers (workloads, garbage collection, namespaces). */}}
{{- define "fairlead.isController" -}}
(request.userInfo.username == 'system:kube-controller-manager' || request.userInfo.username.startsWith('system:serviceaccount:kube-system:'))
{{- end }}

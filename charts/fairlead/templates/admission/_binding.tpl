{{/*
The binding of an admission policy: everywhere, and what it finds is denied.
Takes `name`, `root`, and `parameters` when the policy needs the chart's parameters.
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
  {{- if .parameters }}
  paramRef:
    name: fairlead-admission
    namespace: {{ .root.Release.Namespace }}
    parameterNotFoundAction: Deny
  {{- end }}
{{- end }}

{{/* CEL: the request comes from the operator. */}}
{{- define "fairlead.isOperator" -}}
request.userInfo.username == '{{ include "fairlead.operatorUser" . }}'
{{- end }}

{{/* CEL: the request comes from the engine of the request's namespace. */}}
{{- define "fairlead.isEngine" -}}
request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':fairlead-engine'
{{- end }}

{{/* CEL: the request comes from the cluster's own controllers (workloads, garbage collection, namespaces). */}}
{{- define "fairlead.isController" -}}
(request.userInfo.username == 'system:kube-controller-manager' || request.userInfo.username.startsWith('system:serviceaccount:kube-system:'))
{{- end }}

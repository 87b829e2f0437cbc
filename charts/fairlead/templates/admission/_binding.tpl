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

{{/* What the operator does where clusters are; nothing here is for the whole Kubernetes cluster. */}}
{{- define "shoal.rules" -}}
- apiGroups: [shoal.dev]
  resources: [cacheclusters, cachepools, cachesites, cachepurges, cacheprefetches]
  verbs: [get, list, watch, patch, update]
- apiGroups: [shoal.dev]
  resources: [cachepurges, cacheprefetches]
  verbs: [delete]
- apiGroups: [shoal.dev]
  resources: [cachemembers]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [shoal.dev]
  resources:
    - cacheclusters/status
    - cachepools/status
    - cachemembers/status
    - cachesites/status
    - cachepurges/status
    - cacheprefetches/status
    - cacheclusters/finalizers
    - cachepools/finalizers
    - cachemembers/finalizers
  verbs: [get, patch, update]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims, services, configmaps, secrets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.operator.certManager }}
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, update, delete]
{{- end }}
{{- end -}}

{{/* What the operator does where clusters are, and no more: it has no say in other objects' kinds,
and cannot list secrets. */}}
{{- define "shoal.rules" -}}
- apiGroups: [shoal.dev]
  resources: [cacheclusters, cachepools, cachesites, cachepurges, cacheprefetches, cachemembers]
  verbs: [get, list, watch]
# A site leaves the tier before its object goes; a run that is over may be deleted.
- apiGroups: [shoal.dev]
  resources: [cachesites]
  verbs: [patch]
- apiGroups: [shoal.dev]
  resources: [cachepurges, cacheprefetches]
  verbs: [delete]
- apiGroups: [shoal.dev]
  resources: [cachemembers]
  verbs: [create, patch, delete]
- apiGroups: [shoal.dev]
  resources:
    - cacheclusters/status
    - cachepools/status
    - cachemembers/status
    - cachesites/status
    - cachepurges/status
    - cacheprefetches/status
  verbs: [patch]
# To own what it makes, where a server asks for that right.
- apiGroups: [shoal.dev]
  resources: [cacheclusters/finalizers, cachepools/finalizers, cachemembers/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps, secrets]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.operator.certManager }}
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, create, patch]
{{- end }}
{{- end -}}

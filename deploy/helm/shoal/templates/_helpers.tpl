{{/* What the templates share: names, labels, images, and what every pod of ours may not do. */}}

{{- define "shoal.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "shoal.operator" -}}
{{- printf "%s-operator" (include "shoal.name" .) -}}
{{- end -}}

{{- define "shoal.account" -}}
{{- .Values.operator.serviceAccount.name | default (include "shoal.operator" .) -}}
{{- end -}}

{{- define "shoal.cluster" -}}
{{- .Values.cluster.name | default (include "shoal.name" .) -}}
{{- end -}}

{{/* Labels of every object: (list $ "component"). */}}
{{- define "shoal.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: shoal
{{ include "shoal.selector" . }}
{{- end -}}

{{- define "shoal.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels that the operator gives to the cluster's members. */}}
{{- define "shoal.members" -}}
app.kubernetes.io/name: shoal
shoal.dev/cluster: {{ include "shoal.cluster" . }}
{{- end -}}

{{/* An image's repository with the registry before it: (list $ .image). */}}
{{- define "shoal.repository" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $root.Values.registry -}}
{{- printf "%s/%s" (trimSuffix "/" $root.Values.registry) $image.repository -}}
{{- else -}}
{{- $image.repository -}}
{{- end -}}
{{- end -}}

{{/* An image as a container names it: (list $ .image). */}}
{{- define "shoal.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := include "shoal.repository" . -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Where the load test sends its requests. */}}
{{- define "shoal.edge" -}}
- --edge=http://{{ include "shoal.cluster" . }}.{{ .Release.Namespace }}.svc
- --host={{ .Values.loadTest.host }}
{{- end -}}

{{/* Settings of a pod of ours that Pod Security's level "restricted" asks for. */}}
{{- define "shoal.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "shoal.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Credentials for the registry, where there are any. */}}
{{- define "shoal.pull" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* What values alone cannot say is refused here, with what would be right. */}}
{{- define "shoal.check" -}}
{{- /* Helm looks up every kind before it makes the first object. Without a server there is no look-up,
and `helm template` gives both. */ -}}
{{- if and .Values.cluster.enabled (not (.Capabilities.APIVersions.Has "shoal.dev/v1alpha1/CacheCluster")) -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
{{- fail "the API server does not know Shoal's kinds yet, and Helm cannot bring kinds and objects of them at once: install without cluster.enabled first, then this; or make the cluster a release of its own, with operator.enabled=false and crds.enabled=false" -}}
{{- end -}}
{{- end -}}
{{- if and (or .Values.pools .Values.sites) (not .Values.cluster.enabled) -}}
{{- fail "pools and sites belong to the cluster of this release: set cluster.enabled=true, or write CachePool and CacheSite objects yourself" -}}
{{- end -}}
{{- if and .Values.loadTest.enabled (not .Values.cluster.enabled) -}}
{{- fail "loadTest loads the cluster of this release: set cluster.enabled=true" -}}
{{- end -}}
{{- if and .Values.loadTest.enabled (not .Values.pools) -}}
{{- fail "loadTest needs nodes to load: add a pool under pools" -}}
{{- end -}}
{{- if .Values.nodeLocal.enabled -}}
{{- if not (hasKey .Values.pools .Values.nodeLocal.pool) -}}
{{- fail (printf "nodeLocal.pool is %q: name one of the pools under pools" .Values.nodeLocal.pool) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.operator.enabled .Values.operator.namespaces .Values.cluster.enabled -}}
{{- if not (has .Release.Namespace .Values.operator.namespaces) -}}
{{- fail (printf "operator.namespaces lacks %q, where the cluster of this release is: nobody would tend it" .Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}

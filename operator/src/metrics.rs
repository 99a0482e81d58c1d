//! All figures of the operator. Labels are closed: kinds, steps and outcomes that this code names.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The figures. Clones are the same figures.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Looks at objects that ended well, by kind.
    pub reconciles: IntCounterVec,
    /// Looks at objects that failed, by kind.
    pub failures: IntCounterVec,
    /// Steps done, by their name.
    pub steps: IntCounterVec,
    /// Steps that wait, by kind.
    pub waiting: IntGaugeVec,
    /// Writes to the API server.
    pub writes: IntCounter,
    /// When the look that is under way began, by kind; 0 when none is.
    pub started: IntGaugeVec,
    /// 1 while this process leads.
    pub leading: IntGauge,
    /// 1 while all definitions are there.
    pub definitions: IntGauge,
    /// Objects that cannot be read, by kind.
    pub unreadable: IntCounterVec,
    /// Certificates issued.
    pub certificates: IntCounter,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two have one name, which is a fault of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let own = Registered { registry: &registry };
        let metrics = Self {
            reconciles: own.counters(
                "shoal_operator_reconciles_total",
                "Looks at objects that ended well, by kind.",
                "kind",
            )?,
            failures: own.counters(
                "shoal_operator_failures_total",
                "Looks at objects that failed and are repeated, by kind.",
                "kind",
            )?,
            steps: own.counters(
                "shoal_operator_steps_total",
                "Steps done, by their name.",
                "step",
            )?,
            waiting: own.gauges(
                "shoal_operator_waiting_steps",
                "Steps that wait for a gate, by kind, as last planned.",
                "kind",
            )?,
            writes: own.counter(
                "shoal_operator_writes_total",
                "Writes to the API server. A cluster that is as wanted causes none.",
            )?,
            started: own.gauges(
                "shoal_operator_reconcile_started_seconds",
                "When the look that is under way began, in Unix seconds, by kind; 0 when none is.",
                "kind",
            )?,
            leading: own.gauge("shoal_operator_leading", "1 while this process leads.")?,
            definitions: own.gauge(
                "shoal_operator_definitions_present",
                "1 while the API server has all of Shoal's custom resource definitions.",
            )?,
            unreadable: own.counters(
                "shoal_operator_unreadable_objects_total",
                "Times that an object could not be read and was left alone, by kind.",
                "kind",
            )?,
            certificates: own
                .counter("shoal_operator_certificates_issued_total", "Certificates issued.")?,
            registry: registry.clone(),
        };
        Ok(metrics)
    }

    /// All figures in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut buffer = Vec::new();
        let encoded = prometheus::TextEncoder::new().encode(&self.registry.gather(), &mut buffer);
        if let Err(error) = encoded {
            tracing::warn!(%error, "figures could not be written");
        }
        String::from_utf8(buffer).unwrap_or_default()
    }
}

struct Registered<'a> {
    registry: &'a Registry,
}

impl Registered<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
        self.registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }
}

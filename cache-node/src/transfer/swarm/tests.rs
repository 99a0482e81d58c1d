//! The session alone, and in swarms.

use super::simulator::{Setup, Simulator};

const CHUNK: u32 = 256 * 1024;

fn percentile(times: &[f64], share: f64) -> f64 {
    if times.is_empty() {
        return f64::NAN;
    }
    times[((times.len() - 1) as f64 * share).ceil() as usize]
}

fn sixteen() -> Setup {
    Setup {
        nodes: 16,
        zones: 1,
        chunks: 1_024,
        chunk_bytes: CHUNK,
        rate: 12_500_000,
        mates_max: 32,
        killed: 0,
        filled: false,
        latency_us: 1_000,
    }
}

fn show(name: &str, setup: Setup) -> super::simulator::Outcome {
    let out = Simulator::new(setup).run();
    println!(
        "{name}: done {} stuck {} p50 {:.3} p99 {:.3} max {:.3} filler {:.3} zone {:.3}",
        out.times.len(),
        out.stuck,
        percentile(&out.times, 0.5),
        percentile(&out.times, 0.99),
        percentile(&out.times, 1.0),
        out.filler_sent,
        out.zone_entered
    );
    out
}

#[test]
fn figures() {
    show("16", sixteen());
    let few = Setup { chunks: 256, rate: 2_500_000, latency_us: 100_000, ..sixteen() };
    show("16, few chunks, late", few);
    show("16, few chunks", Setup { latency_us: 1_000, ..few });
    show("16 filled", Setup { filled: true, ..sixteen() });
    show("16, 2 zones", Setup { zones: 2, ..sixteen() });
    show("16, 3 killed", Setup { killed: 3, ..sixteen() });
    show("64", Setup { nodes: 64, ..sixteen() });
    show("64 filled", Setup { nodes: 64, filled: true, ..sixteen() });
    show("16, 4 zones", Setup { zones: 4, ..sixteen() });
    show("200", Setup { nodes: 200, ..sixteen() });
}

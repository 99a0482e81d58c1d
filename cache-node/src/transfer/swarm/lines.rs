//! Lines in virtual time, shared out fairly: what the fullest line leaves to each chunk on it is what
//! that chunk gets, then the next fullest line shares out what is left of it, and so on.

/// A chunk on its way.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) request: u64,
    pub(super) chunk: u32,
    /// Still to come.
    pub(super) bytes: f64,
}

/// One line out of each host, one into it.
pub(super) struct Lines {
    hosts: usize,
    /// Bytes in a microsecond.
    rate: f64,
    flows: Vec<(Flow, f64)>,
    since_us: u64,
    shared: u64,
}

impl Lines {
    /// Lines of so many bytes a second each way.
    pub(super) fn new(hosts: usize, rate: u64) -> Self {
        Self { hosts, rate: rate as f64 / 1e6, flows: Vec::new(), since_us: 0, shared: 0 }
    }

    /// A chunk begins to leave; [`Lines::share`] follows.
    pub(super) fn add(&mut self, now_us: u64, flow: Flow) {
        self.move_on(now_us);
        self.flows.push((flow, 0.0));
    }

    /// Whether a chunk is on its way between the two.
    pub(super) fn carries(&self, from: usize, to: usize) -> bool {
        self.flows.iter().any(|(flow, _)| (flow.from, flow.to) == (from, to))
    }

    /// What is on a host's lines is lost; [`Lines::share`] follows.
    pub(super) fn cut(&mut self, now_us: u64, host: usize) -> Vec<Flow> {
        self.move_on(now_us);
        let gone = |(flow, _): &mut (Flow, f64)| flow.from == host || flow.to == host;
        self.flows.extract_if(.., gone).map(|(flow, _)| flow).collect()
    }

    /// Shares lines out among what is on them; when the next chunk is over, and a number for that.
    pub(super) fn share(&mut self, now_us: u64) -> Option<(u64, u64)> {
        self.move_on(now_us);
        self.shared += 1;
        let mut left = vec![self.rate; 2 * self.hosts];
        let mut open: Vec<usize> = (0..self.flows.len()).collect();
        while !open.is_empty() {
            let mut waiting = vec![0_u32; 2 * self.hosts];
            for at in &open {
                self.lines_of(*at).into_iter().for_each(|line| waiting[line] += 1);
            }
            let each = |line: usize| left[line] / f64::from(waiting[line]);
            let lines = (0..left.len()).filter(|line| waiting[*line] > 0);
            let fullest = lines.min_by(|a, b| each(*a).total_cmp(&each(*b)))?;
            let rate = each(fullest).max(1e-9);
            let (now, later) =
                open.into_iter().partition(|at| self.lines_of(*at).contains(&fullest));
            open = later;
            for at in now {
                self.flows[at].1 = rate;
                self.lines_of(at).into_iter().for_each(|line| left[line] -= rate);
            }
        }
        let next =
            self.flows.iter().map(|(flow, rate)| flow.bytes / rate).min_by(f64::total_cmp)?;
        Some((now_us + next.max(0.0).ceil() as u64, self.shared))
    }

    /// What is over by now; nothing when lines were shared out anew since.
    pub(super) fn over(&mut self, now_us: u64, shared: u64) -> Vec<Flow> {
        if shared != self.shared {
            return Vec::new();
        }
        self.move_on(now_us);
        self.flows.extract_if(.., |(flow, _)| flow.bytes < 1.0).map(|(flow, _)| flow).collect()
    }

    fn lines_of(&self, at: usize) -> [usize; 2] {
        let flow = &self.flows[at].0;
        [flow.from, self.hosts + flow.to]
    }

    fn move_on(&mut self, now_us: u64) {
        let passed = (now_us - self.since_us) as f64;
        self.flows.iter_mut().for_each(|(flow, rate)| flow.bytes -= passed * *rate);
        self.since_us = now_us;
    }
}

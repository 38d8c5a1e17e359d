//! The one clock (C1.3). It advances with the machine's boot-time clock, suspended time included, and is
//! steered towards the wall clock by at most a tenth of the elapsed time; it never goes back. A wall clock
//! that steps is not followed until an operator accepts it: one bad reading must not expire the world. Every
//! other use of a system clock in this project is refused by clippy.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quota_core::time::Timestamp;
use quota_store::Stamp;
use rustix::time::{ClockId, clock_gettime};

/// What the clock says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClockState {
    /// The wall clock less this clock, in nanoseconds.
    pub offset_ns: i64,
    /// The wall clock stepped, and nobody has accepted it.
    pub suspect: bool,
    /// A step backward was accepted: the clock runs at nine tenths until the wall clock has caught up.
    pub waiting: bool,
}

/// A clock.
pub trait Clock: Send + Sync {
    /// All clocks at one instant.
    fn stamp(&self) -> Stamp;

    /// The server's clock.
    fn now(&self) -> Timestamp {
        self.stamp().now
    }

    /// Nanoseconds since the machine's boot, for measuring durations.
    fn boot_ns(&self) -> i64;

    /// What the clock says of itself.
    fn state(&self) -> ClockState;

    /// Accepts the step of the wall clock, if there is one; the state before.
    fn accept(&self) -> ClockState;
}

/// How a clock follows.
#[derive(Clone, Copy, Debug)]
pub struct ClockOptions {
    /// A wall clock that is off by more is not followed.
    pub step_max: Duration,
    /// A wall clock that says that the machine was off for longer is not believed.
    pub downtime_max: Duration,
    /// Accept what the wall clock says at the start.
    pub accept: bool,
}

/// Why the clock cannot be started (C1.3). An operator who has looked at the wall clock says `--accept-clock`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the wall clock {why}; set it right, or start with --accept-clock to go on from it")]
pub struct ClockError {
    why: String,
}

/// The clocks of a machine.
pub trait Machine: Send + Sync {
    /// The boot, as far as it can be told from others.
    fn boot_id(&self) -> [u8; 16];
    /// Nanoseconds since the boot, suspended time included.
    fn boot_ns(&self) -> i64;
    /// Nanoseconds since the Unix epoch.
    fn wall_ns(&self) -> i64;
}

/// The machine that this runs on.
pub struct ThisMachine {
    boot_id: [u8; 16],
}

impl ThisMachine {
    /// Reads the boot's id.
    pub fn new() -> Self {
        Self {
            boot_id: read_boot_id(),
        }
    }
}

impl Default for ThisMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine for ThisMachine {
    fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    fn boot_ns(&self) -> i64 {
        nanos(ClockId::Boottime)
    }

    fn wall_ns(&self) -> i64 {
        nanos(ClockId::Realtime)
    }
}

/// A clock that is steered.
pub struct SystemClock<M = ThisMachine> {
    machine: M,
    step_max: Duration,
    /// The wall clock less the last batch's, where that was in doubt and accepted at the start.
    accepted_ns: Option<i64>,
    state: Mutex<State>,
}

struct State {
    now: i64,
    boot_ns: i64,
    offset_ns: i64,
    suspect: bool,
    waiting: bool,
}

impl<M: Machine> SystemClock<M> {
    /// Goes on from `last`, the clocks of the last batch: in the same boot by the time since, in another by
    /// the wall clock, never backwards.
    pub fn start(
        machine: M,
        last: Option<Stamp>,
        options: ClockOptions,
    ) -> Result<Self, ClockError> {
        let boot_ns = machine.boot_ns();
        let wall = machine.wall_ns();
        let mut state = State {
            now: wall,
            boot_ns,
            offset_ns: 0,
            suspect: false,
            waiting: false,
        };
        let mut accepted_ns = None;
        if let Some(last) = last {
            let same_boot = last.boot_id == machine.boot_id() && last.boot_ns <= boot_ns;
            if same_boot {
                let since = boot_ns.saturating_sub(last.boot_ns);
                state.now = last.now.nanos().saturating_add(since);
                state.suspect = last.suspect;
                state.waiting = last.waiting;
            } else {
                match doubt(last, wall, options) {
                    Some(why) if !options.accept => return Err(ClockError { why }),
                    Some(_) => accepted_ns = Some(wall.saturating_sub(last.now.nanos())),
                    None => {}
                }
                state.now = wall.max(last.now.nanos());
            }
            if options.accept {
                if same_boot && state.suspect {
                    accepted_ns = Some(wall.saturating_sub(state.now));
                }
                state.accept(wall);
            }
        }
        Ok(Self {
            machine,
            step_max: options.step_max,
            accepted_ns,
            state: Mutex::new(state),
        })
    }

    /// What was accepted at the start: the wall clock less the server's, in nanoseconds; none where there was
    /// no doubt.
    pub fn accepted_ns(&self) -> Option<i64> {
        self.accepted_ns
    }

    fn advance(&self, state: &mut State) {
        let boot_ns = self.machine.boot_ns();
        let elapsed = boot_ns.saturating_sub(state.boot_ns).max(0);
        let free = state.now.saturating_add(elapsed);
        let off = self.machine.wall_ns().saturating_sub(free);
        let close = u128::from(off.unsigned_abs()) <= self.step_max.as_nanos();
        state.waiting &= off < 0 && !close;
        // Once the wall clock has come back by itself, there is nothing to accept any more.
        state.suspect = !close && !state.waiting;
        let steer = match close || state.waiting {
            true => off.clamp(elapsed.saturating_neg() / 10, elapsed / 10),
            false => 0,
        };
        state.now = free.saturating_add(steer);
        state.boot_ns = boot_ns.max(state.boot_ns);
        state.offset_ns = off.saturating_sub(steer);
    }

    fn with_state<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        self.advance(&mut state);
        read(&mut state)
    }
}

impl State {
    /// Forward at once; backward by waiting.
    fn accept(&mut self, wall: i64) {
        let off = wall.saturating_sub(self.now);
        self.suspect = false;
        if off > 0 {
            self.now = wall;
            self.offset_ns = 0;
        } else {
            self.waiting = off < 0;
            self.offset_ns = off;
        }
    }

    fn shown(&self) -> ClockState {
        ClockState {
            offset_ns: self.offset_ns,
            suspect: self.suspect,
            waiting: self.waiting,
        }
    }
}

impl<M: Machine> Clock for SystemClock<M> {
    fn stamp(&self) -> Stamp {
        let boot_id = self.machine.boot_id();
        self.with_state(|state| Stamp {
            now: Timestamp::from_nanos(state.now),
            boot_id,
            boot_ns: state.boot_ns,
            suspect: state.suspect,
            waiting: state.waiting,
        })
    }

    fn boot_ns(&self) -> i64 {
        self.machine.boot_ns()
    }

    fn state(&self) -> ClockState {
        self.with_state(|state| state.shown())
    }

    fn accept(&self) -> ClockState {
        let wall = self.machine.wall_ns();
        self.with_state(|state| {
            let before = state.shown();
            if state.suspect {
                state.accept(wall);
            }
            before
        })
    }
}

/// What is wrong with the wall clock of another boot than the last, if anything.
fn doubt(last: Stamp, wall: i64, options: ClockOptions) -> Option<String> {
    let wall = Timestamp::from_nanos(wall);
    let shown =
        |length: Duration| humantime::format_duration(Duration::from_secs(length.as_secs()));
    if last.suspect {
        return Some("had stepped before the last stop and was not accepted".into());
    }
    let back = last.now.since(wall);
    if back > options.step_max {
        return Some(format!("is {} before the last batch", shown(back)));
    }
    let ahead = wall.since(last.now);
    (ahead > options.downtime_max).then(|| {
        format!(
            "is {} after the last batch, more than downtime_max allows",
            shown(ahead)
        )
    })
}

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

fn read_boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16)
        .unwrap_or_default()
        .to_be_bytes()
}

/// A clock that stands still until it is told to move; for tests.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<Mutex<i64>>);

impl ManualClock {
    /// A clock at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(now.nanos())))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = Timestamp::from_nanos(*now).plus(by).nanos();
    }
}

impl Clock for ManualClock {
    fn stamp(&self) -> Stamp {
        let now = *self.0.lock();
        Stamp {
            now: Timestamp::from_nanos(now),
            boot_id: [0; 16],
            boot_ns: now,
            suspect: false,
            waiting: false,
        }
    }

    fn boot_ns(&self) -> i64 {
        *self.0.lock()
    }

    fn state(&self) -> ClockState {
        ClockState::default()
    }

    fn accept(&self) -> ClockState {
        ClockState::default()
    }
}

/// A machine whose clocks are set; for tests.
#[derive(Clone)]
pub struct ManualMachine(Arc<Mutex<ManualClocks>>);

struct ManualClocks {
    boot: u8,
    boot_ns: i64,
    wall_ns: i64,
}

impl ManualMachine {
    /// A machine that was just started, with its wall clock at so many nanoseconds since the Unix epoch.
    pub fn at(wall_ns: i64) -> Self {
        let clocks = ManualClocks {
            boot: 1,
            boot_ns: 0,
            wall_ns,
        };
        Self(Arc::new(Mutex::new(clocks)))
    }

    /// Lets both clocks go on by so many nanoseconds.
    pub fn pass(&self, nanos: i64) {
        let mut clocks = self.0.lock();
        clocks.boot_ns = clocks.boot_ns.saturating_add(nanos);
        clocks.wall_ns = clocks.wall_ns.saturating_add(nanos);
    }

    /// Sets the wall clock forward, or back.
    pub fn step(&self, nanos: i64) {
        let mut clocks = self.0.lock();
        clocks.wall_ns = clocks.wall_ns.saturating_add(nanos);
    }

    /// Another boot, so many nanoseconds later by the wall clock.
    pub fn reboot(&self, nanos: i64) {
        let mut clocks = self.0.lock();
        clocks.boot = clocks.boot.wrapping_add(1);
        clocks.boot_ns = 5_000_000_000;
        clocks.wall_ns = clocks.wall_ns.saturating_add(nanos);
    }
}

impl Machine for ManualMachine {
    fn boot_id(&self) -> [u8; 16] {
        [self.0.lock().boot; 16]
    }

    fn boot_ns(&self) -> i64 {
        self.0.lock().boot_ns
    }

    fn wall_ns(&self) -> i64 {
        self.0.lock().wall_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const YEAR: i64 = 365 * 24 * 3600 * SECOND;
    const BEGIN: i64 = 1_790_000_000 * SECOND;

    fn start(
        machine: &ManualMachine,
        last: Option<Stamp>,
        accept: bool,
    ) -> Result<SystemClock<ManualMachine>, ClockError> {
        let options = ClockOptions {
            step_max: Duration::from_secs(10),
            downtime_max: Duration::from_secs(30 * 24 * 3600),
            accept,
        };
        SystemClock::start(machine.clone(), last, options)
    }

    fn now(clock: &SystemClock<ManualMachine>) -> i64 {
        clock.now().nanos()
    }

    /// C1.3: steered by at most a tenth of the elapsed time, either way.
    #[test]
    fn is_steered_slowly() {
        let machine = ManualMachine::at(BEGIN);
        let clock = start(&machine, None, false).unwrap();
        machine.step(5 * SECOND);
        machine.pass(10 * SECOND);
        assert_eq!(now(&clock) - BEGIN, 11 * SECOND);
        machine.pass(100 * SECOND);
        assert_eq!(now(&clock) - BEGIN, 115 * SECOND);
        assert_eq!(clock.state(), ClockState::default());
        machine.step(-5 * SECOND);
        machine.pass(10 * SECOND);
        assert_eq!(now(&clock) - BEGIN, 124 * SECOND);
    }

    /// C1.3: a year forward is not followed until it is accepted, and then at once.
    #[test]
    fn a_step_forward_waits_for_an_operator() {
        let machine = ManualMachine::at(BEGIN);
        let clock = start(&machine, None, false).unwrap();
        machine.step(YEAR);
        machine.pass(SECOND);
        assert_eq!(now(&clock) - BEGIN, SECOND);
        assert!(clock.state().suspect);
        assert_eq!(clock.state().offset_ns, YEAR);
        let before = clock.accept();
        assert!(before.suspect);
        assert_eq!(now(&clock) - BEGIN, YEAR + SECOND);
        assert_eq!(clock.state(), ClockState::default());
    }

    /// C1.3: a step back that is accepted makes the clock run at nine tenths; it never goes back.
    #[test]
    fn a_step_back_is_waited_for() {
        let machine = ManualMachine::at(BEGIN);
        let clock = start(&machine, None, false).unwrap();
        machine.step(-100 * SECOND);
        machine.pass(SECOND);
        assert!(clock.state().suspect);
        assert_eq!(now(&clock) - BEGIN, SECOND);
        clock.accept();
        assert!(clock.state().waiting && !clock.state().suspect);
        machine.pass(500 * SECOND);
        assert_eq!(now(&clock) - BEGIN, 451 * SECOND);
        assert!(clock.state().waiting);
        machine.pass(500 * SECOND);
        let off = now(&clock) - BEGIN - (1001 - 100) * SECOND;
        assert_eq!(off, 0);
        assert_eq!(clock.state(), ClockState::default());
        // A year back, not accepted, that comes right by itself.
        machine.step(-YEAR);
        machine.pass(SECOND);
        assert!(clock.state().suspect);
        machine.step(YEAR);
        machine.pass(SECOND);
        assert_eq!(clock.state(), ClockState::default());
    }

    /// C1.3: a wall clock that stands still is steered towards, then not followed; a suspended machine's
    /// boot-time clock has gone on.
    #[test]
    fn standing_still_and_suspending() {
        let machine = ManualMachine::at(BEGIN);
        let clock = start(&machine, None, false).unwrap();
        let mut last = now(&clock);
        for _ in 0..60 {
            machine.pass(SECOND);
            machine.step(-SECOND);
            let at = now(&clock);
            assert!(at >= last + 9 * SECOND / 10);
            last = at;
        }
        assert!(clock.state().suspect);
        let machine = ManualMachine::at(BEGIN);
        let clock = start(&machine, None, false).unwrap();
        machine.pass(8 * 3600 * SECOND);
        assert_eq!(now(&clock) - BEGIN, 8 * 3600 * SECOND);
        assert!(!clock.state().suspect);
    }

    /// C1.3: in the same boot by the time since the last batch; in another the wall clock is looked at.
    #[test]
    fn goes_on_from_the_last_batch() {
        let machine = ManualMachine::at(BEGIN);
        let first = start(&machine, None, false).unwrap().stamp();
        machine.pass(60 * SECOND);
        machine.step(YEAR);
        let clock = start(&machine, Some(first), false).unwrap();
        assert_eq!(now(&clock) - BEGIN, 60 * SECOND);
        let stepped = clock.stamp();
        assert!(stepped.suspect);

        // Another boot: what was on record needs to be accepted, wherever the clock stands now.
        machine.reboot(-YEAR + 60 * SECOND);
        assert!(start(&machine, Some(stepped), false).is_err());
        let clock = start(&machine, Some(stepped), true).unwrap();
        assert_eq!(now(&clock) - BEGIN, 120 * SECOND);

        // Earlier than the last batch: refused, or accepted and waited for; a little earlier is nothing.
        let last = clock.stamp();
        machine.reboot(-20 * SECOND);
        let error = start(&machine, Some(last), false).err().unwrap();
        assert!(error.to_string().contains("20s before"), "{error}");
        let clock = start(&machine, Some(last), true).unwrap();
        assert_eq!(clock.stamp().now, last.now);
        assert!(clock.state().waiting);
        machine.reboot(15 * SECOND);
        assert!(start(&machine, Some(last), false).is_ok());

        // Off for longer than downtime_max.
        machine.reboot(40 * 24 * 3600 * SECOND);
        let error = start(&machine, Some(last), false).err().unwrap();
        assert!(error.to_string().contains("downtime_max"), "{error}");
        assert!(start(&machine, Some(last), true).is_ok());
    }
}

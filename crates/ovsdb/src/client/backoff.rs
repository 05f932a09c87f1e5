//! In which order servers are tried, and how long to wait between.

use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

/// Wait before the second round over all servers.
const SHORTEST: Duration = Duration::from_millis(250);
/// Wait between rounds at most.
const LONGEST: Duration = Duration::from_secs(4);

/// Tries each server once per round, in an order that is shuffled anew each time, so that the clients of a lost leader do not
/// all go to the same next server. Rounds are apart by a wait that doubles, less up to a half of it by chance.
#[derive(Debug)]
pub(super) struct Backoff {
    servers: usize,
    round: Vec<usize>,
    rounds: u32,
}

impl Backoff {
    pub(super) fn new(servers: usize) -> Self {
        Backoff {
            servers,
            round: Vec::new(),
            rounds: 0,
        }
    }

    /// The next server to try, and how long to wait before.
    pub(super) fn next(&mut self) -> (Duration, usize) {
        let wait = if self.round.is_empty() {
            self.new_round()
        } else {
            Duration::ZERO
        };
        (wait, self.round.pop().unwrap_or(0))
    }

    fn new_round(&mut self) -> Duration {
        let mut rng = rand::rng();
        self.round = (0..self.servers).collect();
        self.round.shuffle(&mut rng);
        let rounds = self.rounds;
        self.rounds += 1;
        match rounds {
            0 => Duration::ZERO,
            _ => SHORTEST
                .saturating_mul(1 << (rounds - 1).min(16))
                .min(LONGEST)
                .mul_f64(rng.random_range(0.5..=1.0)),
        }
    }

    /// The last try was a success.
    pub(super) fn reset(&mut self) {
        *self = Backoff::new(self.servers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_once_per_round() {
        let mut backoff = Backoff::new(3);
        for round in 0..40 {
            let tries: Vec<(Duration, usize)> = (0..3).map(|_| backoff.next()).collect();
            let mut servers: Vec<usize> = tries.iter().map(|(_, server)| *server).collect();
            servers.sort_unstable();
            assert_eq!(servers, [0, 1, 2]);
            assert_eq!((tries[1].0, tries[2].0), (Duration::ZERO, Duration::ZERO));
            assert!(tries[0].0 <= LONGEST);
            assert!((tries[0].0 >= SHORTEST / 2) == (round > 0));
        }
        backoff.reset();
        assert_eq!(backoff.next().0, Duration::ZERO);
    }
}

//! When a certificate is renewed.

/// Two thirds of its time.
const NUMERATOR: i64 = 2;
const DENOMINATOR: i64 = 3;

/// A certificate's time, in s since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// When it begins.
    pub not_before_unix_s: i64,
    /// When it ends.
    pub expires_unix_s: i64,
}

/// What to do about it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing before so many seconds have passed.
    Wait {
        /// From now.
        seconds: i64,
    },
    /// Ask for the next one.
    Now,
    /// It has ended: no link comes about with it any more. Asking is still tried, joining again is the remedy.
    Expired,
}

impl Validity {
    /// When two thirds of its time have passed, in s since 1970.
    #[must_use]
    pub fn renew_at_unix_s(self) -> i64 {
        let span = self.expires_unix_s.saturating_sub(self.not_before_unix_s).max(0);
        self.not_before_unix_s.saturating_add(span / DENOMINATOR * NUMERATOR)
    }

    /// What to do at `now_unix_s`.
    #[must_use]
    pub fn at(self, now_unix_s: i64) -> Renewal {
        if now_unix_s >= self.expires_unix_s {
            return Renewal::Expired;
        }
        match self.renew_at_unix_s().saturating_sub(now_unix_s) {
            seconds @ 1.. => Renewal::Wait { seconds },
            _ => Renewal::Now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn thirty_days_are_renewed_on_the_twentieth() {
        let month = Validity { not_before_unix_s: 1_000, expires_unix_s: 1_000 + 30 * DAY };
        assert_eq!(month.at(1_000), Renewal::Wait { seconds: 20 * DAY });
        assert_eq!(month.at(1_000 + 20 * DAY - 1), Renewal::Wait { seconds: 1 });
        assert_eq!(month.at(1_000 + 20 * DAY), Renewal::Now);
        assert_eq!(month.at(1_000 + 30 * DAY), Renewal::Expired);
        // A clock that was set back waits longer, and no arithmetic overflows.
        assert_eq!(month.at(0), Renewal::Wait { seconds: 1_000 + 20 * DAY });
        assert_eq!(Validity { not_before_unix_s: i64::MIN, expires_unix_s: i64::MAX }.at(0), Renewal::Now);
    }
}

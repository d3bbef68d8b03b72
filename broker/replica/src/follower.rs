//! What a follower decides: where it truncates (KIP-101, KIP-279, KIP-320) and which high watermark it may adopt.
//!
//! A follower never truncates to its own high watermark: that watermark lags, and two followers that cut at it can keep
//! different records at one offset. It cuts where its history and the leader's part, which only epochs tell.

/// A leader epoch and the offset at which it ends (exclusive), as an epoch cache or a leader's answer gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The leader epoch.
    pub epoch: i32,
    /// First offset that is not of this epoch.
    pub end_offset: i64,
}

/// Where to cut the log after the leader answered that histories part at `leader`.
///
/// `own` is this replica's end of the largest epoch that is not above the leader's epoch; none: it has no such epoch, so that
/// all of its records (from `log_start` on) are of epochs that the leader never had, and all go. The result is at most
/// `log_end`. When the epochs differ the follower cuts at its own end of the smaller one and asks again: each round removes
/// at least one epoch, so that the search ends.
pub fn truncation_offset(leader: EpochEnd, own: Option<EpochEnd>, (log_start, log_end): (i64, i64)) -> i64 {
    let offset = match own {
        Some(own) if own.epoch == leader.epoch => own.end_offset.min(leader.end_offset),
        Some(own) => own.end_offset,
        None => log_start,
    };
    offset.clamp(0, log_end.max(0))
}

/// The high watermark that a follower adopts: never above what it holds, never back.
///
/// Truncation comes first (the caller lowers `own` by it): a follower that adopted the leader's watermark over records
/// which it is about to cut would serve records that are not committed (KAFKA-14704).
pub fn adopted_high_watermark(own: i64, leader: i64, log_end: i64) -> i64 {
    own.max(leader.min(log_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(epoch: i32, end_offset: i64) -> EpochEnd {
        EpochEnd { epoch, end_offset }
    }

    #[test]
    fn cuts_at_the_end_of_the_largest_common_epoch() {
        assert_eq!(truncation_offset(end(3, 50), Some(end(3, 70)), (0, 90)), 50);
        assert_eq!(truncation_offset(end(3, 80), Some(end(3, 70)), (0, 90)), 70);
    }

    #[test]
    fn cuts_at_its_own_end_of_a_smaller_epoch_and_asks_again() {
        assert_eq!(truncation_offset(end(5, 80), Some(end(3, 60)), (0, 90)), 60);
    }

    /// The log of a leader whose every record was of its own epoch, the first that it ever saw: cutting at the leader's end
    /// would leave them, and the next fetch would get the same answer, for ever.
    #[test]
    fn without_a_common_epoch_nothing_of_the_log_stays() {
        assert_eq!(truncation_offset(end(0, 1), None, (0, 1)), 0);
        assert_eq!(truncation_offset(end(2, 10), None, (4, 90)), 4);
        assert_eq!(truncation_offset(end(2, 10), None, (4, 4)), 4, "an empty log");
    }

    #[test]
    fn an_undefined_answer_never_goes_below_zero() {
        assert_eq!(truncation_offset(end(-1, -1), Some(end(-1, -1)), (0, 9)), 0);
    }

    #[test]
    fn the_watermark_stays_within_the_log_and_never_goes_back() {
        assert_eq!(adopted_high_watermark(5, 9, 7), 7);
        assert_eq!(adopted_high_watermark(5, 3, 7), 5);
        assert_eq!(adopted_high_watermark(5, 6, 7), 6);
    }
}

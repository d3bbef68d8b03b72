//! What each ambush does, move by move. Of the partition's replicas `First` is preferred, then `Second`, then `Third`.

use super::{Ambush, Caught, Move, Until, Who};

use Move::{
    Block, Catch, CutFromControllers, Freeze, Isolate, Join, JoinAll, LosePower, Pause, Rebalance, Release,
    Sleep, Start, Wait,
};
use Until::{
    Awake, FetchCaught, FollowsWith, HasMore, InSync, Leads, MarkerCaught, OpenAgain, Out, ProposalCaught,
    Repaired, SettledOn, Unfenced,
};
use Who::{First, Second, Third};

/// A leader is cut off from the controllers only, and its followers do not hear who leads now.
const DEPOSED: &[Move] =
    &[Freeze(Second), Freeze(Third), CutFromControllers(First), Wait(Out(First)), Pause(1_500), JoinAll];

/// As [`DEPOSED`], but the leader's process stands still until long after its lease: it does not know how late it is.
const OVERSLEPT: &[Move] = &[
    Freeze(Second),
    Freeze(Third),
    CutFromControllers(First),
    Sleep(First),
    Wait(Out(First)),
    Wait(Awake(First)),
    Pause(1_500),
    JoinAll,
];

/// While a follower is proposed for the ISR its disk loses what it said that it has (KIP-903).
const RELAPSE: &[Move] = &[
    Isolate(Second),
    Wait(Out(Second)),
    Catch(Caught::Proposal { is_kept: true }),
    Join(Second),
    Wait(ProposalCaught),
    // What is acknowledged now the follower has too.
    Pause(700),
    LosePower(Second),
    Block(First, Second),
    Start(Second),
    Wait(Unfenced(Second)),
    Release,
    Pause(100),
    Isolate(First),
    Wait(Leads(Second)),
    Pause(1_000),
    JoinAll,
];

/// A proposal comes a second time when its member has left the ISR again.
const ECHO: &[Move] = &[
    Isolate(Second),
    Wait(Out(Second)),
    Catch(Caught::Proposal { is_kept: false }),
    Join(Second),
    Wait(ProposalCaught),
    Wait(InSync(Second)),
    Isolate(Second),
    Wait(Out(Second)),
    // What is acknowledged now the follower lacks.
    Pause(700),
    Join(Second),
    Block(First, Second),
    Wait(Unfenced(Second)),
    Release,
    Pause(100),
    Isolate(First),
    Wait(Leads(Second)),
    Pause(1_000),
    JoinAll,
];

/// Of two in sync one loses the end of its log, then the other is gone (KIP-966).
const WIPED: &[Move] = &[
    Isolate(Third),
    Wait(Out(Third)),
    Pause(700),
    LosePower(Second),
    Block(First, Second),
    Start(Second),
    Wait(Unfenced(Second)),
    Isolate(First),
    Wait(Leads(Second)),
    Pause(500),
    JoinAll,
];

/// A follower's word on records of one leader comes when that leads again, and the follower has given them up for another.
const LATE_FETCH: &[Move] = &[
    Isolate(First),
    Wait(Leads(Second)),
    Join(First),
    Wait(InSync(First)),
    Wait(InSync(Third)),
    Catch(Caught::Fetch),
    // Now there are records that the preferred leader lacks, so that they are not committed.
    Block(First, Second),
    Wait(FetchCaught),
    Wait(HasMore(Third)),
    Rebalance,
    Wait(SettledOn(First)),
    Wait(FollowsWith(Third)),
    Block(Third, Second),
    Isolate(First),
    Wait(SettledOn(Second)),
    Release,
    Pause(50),
    Isolate(Second),
    Wait(SettledOn(Third)),
    Join(First),
    Pause(2_000),
    JoinAll,
];

/// A marker comes a second time, in the midst of the next transaction of its producer.
const LATE_MARKER: &[Move] =
    &[Catch(Caught::Marker), Wait(MarkerCaught), Wait(OpenAgain), Release, Pause(300), JoinAll];

impl Ambush {
    /// Its moves; before each round the partition is whole and led by its preferred leader.
    pub(super) fn moves(self) -> &'static [Move] {
        match self {
            Self::Deposed => DEPOSED,
            Self::Overslept => OVERSLEPT,
            Self::Relapse => RELAPSE,
            Self::Echo => ECHO,
            Self::Wiped => WIPED,
            Self::LateFetch => LATE_FETCH,
            Self::LateMarker => LATE_MARKER,
        }
    }

    /// What comes before each round.
    pub(super) fn preparation() -> &'static [Move] {
        &[Wait(Repaired), Rebalance, Wait(SettledOn(First)), Pause(300)]
    }
}

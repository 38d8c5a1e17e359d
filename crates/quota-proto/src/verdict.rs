//! What every answer with a verdict can be asked.

use crate::v1;

/// Answers to requests for growth.
macro_rules! decided {
    ($($response:ident)*) => {$(
        impl v1::$response {
            /// The decision; unspecified where there is no verdict.
            pub fn decision(&self) -> v1::Decision {
                self.verdict.as_ref().map_or(v1::Decision::Unspecified, |verdict| verdict.decision())
            }

            /// Every limit that refuses.
            pub fn refusals(&self) -> &[v1::LimitFinding] {
                self.verdict.as_ref().map_or(&[], |verdict| &verdict.refusals)
            }
        }
    )*};
}

decided!(CheckResponse ConsumeResponse ResizeResponse ReserveResponse CommitHoldResponse);

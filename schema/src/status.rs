//! MAAS's machine statuses: numbers, labels and legal transitions. Clients store the numbers and compare the labels.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

macro_rules! statuses {
    ($($name:ident = $number:literal, $label:literal => [$($to:ident)*]),* $(,)?) => {
        /// The status of a node, as in MAAS; the number is part of the API.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each name is MAAS's own and says what it is")]
        pub enum NodeStatus {
            #[default]
            $($name),*
        }

        impl NodeStatus {
            /// Every status, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number in the API and the database.
            #[must_use]
            pub fn number(self) -> i64 {
                match self { $(Self::$name => $number),* }
            }

            /// The label that clients compare.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// The statuses that MAAS lets a machine enter from here.
            #[must_use]
            pub fn successors(self) -> &'static [Self] {
                match self { $(Self::$name => &[$(Self::$to),*]),* }
            }
        }
    };
}

statuses! {
    New = 0, "New" => [Commissioning Testing Missing Ready Retired Broken EnteringRescueMode],
    Commissioning = 1, "Commissioning" => [FailedCommissioning Ready Retired Missing New Broken Testing],
    FailedCommissioning = 2, "Failed commissioning" => [Commissioning Missing Retired Broken EnteringRescueMode Testing],
    Missing = 3, "Missing" => [New Ready Allocated Commissioning Broken EnteringRescueMode Testing],
    Ready = 4, "Ready" => [EnteringRescueMode Commissioning Allocated Reserved Retired Missing Broken Testing],
    Reserved = 5, "Reserved" => [Ready Allocated Retired Missing Broken DiskErasing Releasing EnteringRescueMode Testing],
    Deployed = 6, "Deployed" => [Allocated Missing Broken Ready DiskErasing Releasing EnteringRescueMode Testing],
    Retired = 7, "Retired" => [New Ready Missing Broken EnteringRescueMode Testing],
    Broken = 8, "Broken" => [Commissioning Ready DiskErasing Releasing EnteringRescueMode Testing Deployed],
    Deploying = 9, "Deploying" => [Allocated Missing Broken FailedDeployment Deployed Ready DiskErasing Releasing],
    Allocated = 10, "Allocated" => [Ready Retired Missing Broken Deploying DiskErasing Releasing EnteringRescueMode Testing],
    FailedDeployment = 11, "Failed deployment" => [Allocated Missing Broken Ready DiskErasing Releasing EnteringRescueMode Testing],
    Releasing = 12, "Releasing" => [Allocated Reserved Deployed Ready Broken Missing FailedDeployment FailedDiskErasing FailedReleasing],
    FailedReleasing = 13, "Releasing failed" => [Releasing DiskErasing Ready Broken Testing],
    DiskErasing = 14, "Disk erasing" => [Broken DiskErasing FailedDiskErasing Ready Releasing],
    FailedDiskErasing = 15, "Failed disk erasing" => [DiskErasing Releasing Broken Allocated Ready EnteringRescueMode Testing],
    RescueMode = 16, "Rescue mode" => [Broken ExitingRescueMode Testing],
    EnteringRescueMode = 17, "Entering rescue mode" => [Ready Broken Deployed RescueMode FailedEnteringRescueMode ExitingRescueMode],
    FailedEnteringRescueMode = 18, "Failed to enter rescue mode" => [Broken EnteringRescueMode ExitingRescueMode Testing],
    ExitingRescueMode = 19, "Exiting rescue mode" => [New Broken FailedCommissioning Ready Reserved Allocated FailedDeployment Deployed Missing Retired FailedReleasing FailedDiskErasing RescueMode FailedEnteringRescueMode FailedExitingRescueMode FailedTesting],
    FailedExitingRescueMode = 20, "Failed to exit rescue mode" => [Broken ExitingRescueMode Testing],
    Testing = 21, "Testing" => [Broken New Ready Reserved Allocated Deployed Commissioning FailedDeployment Missing Retired FailedReleasing FailedDiskErasing FailedEnteringRescueMode FailedExitingRescueMode FailedTesting],
    FailedTesting = 22, "Failed testing" => [Commissioning Broken Missing EnteringRescueMode Testing Ready Deployed],
}

impl NodeStatus {
    /// The status of that number; `None` when MAAS has none.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.number() == number)
    }

    /// Whether MAAS lets a machine go from here to `to`.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        self.successors().contains(&to)
    }

    /// Whether something is under way that ends in another status by itself.
    #[must_use]
    pub fn in_progress(self) -> bool {
        self.failed().is_some()
    }

    /// The status that a failure or a time-out leads to, for statuses in which something is under way.
    #[must_use]
    pub fn failed(self) -> Option<Self> {
        match self {
            Self::Commissioning => Some(Self::FailedCommissioning),
            Self::Deploying => Some(Self::FailedDeployment),
            Self::Releasing => Some(Self::FailedReleasing),
            Self::DiskErasing => Some(Self::FailedDiskErasing),
            Self::EnteringRescueMode => Some(Self::FailedEnteringRescueMode),
            Self::ExitingRescueMode => Some(Self::FailedExitingRescueMode),
            Self::Testing => Some(Self::FailedTesting),
            _ => None,
        }
    }
}

/// What is known of a machine's power.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    On,
    Off,
    /// Never asked, or the driver cannot tell.
    #[default]
    Unknown,
    /// The last question failed.
    Error,
}

impl PowerState {
    /// MAAS's word for it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_maas_numbers_in_order() {
        for (index, status) in NodeStatus::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(status.number()).unwrap(), index);
            assert_eq!(NodeStatus::from_number(status.number()), Some(*status));
        }
        assert_eq!(NodeStatus::ALL.len(), 23);
    }

    #[test]
    fn every_failed_twin_is_a_legal_successor() {
        for status in NodeStatus::ALL {
            if let Some(failed) = status.failed() {
                assert!(status.may_become(failed), "{status:?} may not become {failed:?}");
            }
        }
    }
}

//! What is stored can be read.

/// Every row that a member holds can be read and decoded, whatever the disk went through.
pub struct WhatIsStoredCanBeRead;

impl WhatIsStoredCanBeRead {
    /// The name of the invariant.
    pub const NAME: &'static str = "what is stored can be read";
}

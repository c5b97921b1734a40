//! Keys and codes of a session: RAKP's key exchange, integrity, confidentiality (IPMI 2.0 sections 13.20 to 13.32). Comparisons take constant time.

use aes::Aes128;
use cbc::{
    Decryptor, Encryptor,
    cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit},
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::packet::{Malformed, malformed};

/// Bytes of an AES block, and of an initialisation vector.
pub const BLOCK: usize = 16;
/// Bytes of a password, padded with zeros, and of a K_g (sections 22.30 and 22.33).
pub const KEY_BYTES: usize = 20;

/// A cipher suite with authentication, integrity and AES-CBC-128 (table 22-20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// 3: HMAC-SHA1, HMAC-SHA1-96.
    Sha1,
    /// 17: HMAC-SHA256, HMAC-SHA256-128.
    Sha256,
}

impl Suite {
    /// Both, the better first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    /// Its number in table 22-20.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::Sha1 => 3,
            Self::Sha256 => 17,
        }
    }

    /// Authentication, integrity and confidentiality algorithm (tables 13-17 to 13-19).
    #[must_use]
    pub fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Sha1 => [1, 1, 1],
            Self::Sha256 => [3, 4, 1],
        }
    }

    /// Bytes of a key exchange code.
    #[must_use]
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Bytes of a packet's signature, and of RAKP 4's check.
    #[must_use]
    pub fn tag_len(self) -> usize {
        match self {
            Self::Sha1 => 12,
            Self::Sha256 => 16,
        }
    }

    fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha1 => hmac::<Hmac<Sha1>>(key, parts),
            Self::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
        }
    }
}

/// A key of any length is taken, so the error cannot happen; an empty code verifies nothing.
fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Whether two codes are the same and not empty.
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    !one.is_empty() && bool::from(one.ct_eq(other))
}

/// Everything that both ends put into the codes of RAKP 2 to 4 (section 13.31).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub suite: Suite,
    /// The id that the console gave its end.
    pub console_session: u32,
    /// The id that the BMC gave its end.
    pub bmc_session: u32,
    pub console_random: [u8; 16],
    pub bmc_random: [u8; 16],
    pub guid: [u8; 16],
    /// RAKP 1's privilege byte as it was sent, with the name-only bit.
    pub role: u8,
    pub user: Vec<u8>,
}

impl Exchange {
    /// RAKP 2's code: the BMC knows the user's password.
    #[must_use]
    pub fn bmc_code(&self, password: &[u8]) -> Vec<u8> {
        let (console, bmc) = (self.console_session.to_le_bytes(), self.bmc_session.to_le_bytes());
        let name = self.name();
        self.suite.hmac(password, &[&console, &bmc, &self.console_random, &self.bmc_random, &self.guid, &name])
    }

    /// RAKP 3's code: the console knows it too.
    #[must_use]
    pub fn console_code(&self, password: &[u8]) -> Vec<u8> {
        let console = self.console_session.to_le_bytes();
        self.suite.hmac(password, &[&self.bmc_random, &console, &self.name()])
    }

    /// The session's integrity key. `key`: the BMC's K_g, or the password where it has none.
    #[must_use]
    pub fn session_key(&self, key: &[u8]) -> Vec<u8> {
        self.suite.hmac(key, &[&self.console_random, &self.bmc_random, &self.name()])
    }

    /// RAKP 4's check: the BMC came to the same session key.
    #[must_use]
    pub fn check(&self, session_key: &[u8]) -> Vec<u8> {
        let bmc = self.bmc_session.to_le_bytes();
        let mut code = self.suite.hmac(session_key, &[&self.console_random, &bmc, &self.guid]);
        code.truncate(self.suite.tag_len());
        code
    }

    fn name(&self) -> Vec<u8> {
        let mut bytes = vec![self.role, u8::try_from(self.user.len()).unwrap_or(u8::MAX)];
        bytes.extend(&self.user);
        bytes
    }
}

/// The two keys of a session, of its session key (section 13.32).
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    suite: Suite,
    /// K1: signs packets.
    signs: Vec<u8>,
    /// The first 16 bytes of K2.
    hides: [u8; BLOCK],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({:?})", self.suite)
    }
}

impl Keys {
    /// The keys that follow from a session key.
    #[must_use]
    pub fn new(suite: Suite, session_key: &[u8]) -> Self {
        let second = suite.hmac(session_key, &[&[2; KEY_BYTES]]);
        let mut hides = [0; BLOCK];
        hides.iter_mut().zip(second).for_each(|(to, from)| *to = from);
        Self { suite, signs: suite.hmac(session_key, &[&[1; KEY_BYTES]]), hides }
    }

    /// Bytes of a packet's signature.
    #[must_use]
    pub fn tag_len(&self) -> usize {
        self.suite.tag_len()
    }

    /// The signature of what it covers.
    #[must_use]
    pub fn tag(&self, covered: &[u8]) -> Vec<u8> {
        let mut tag = self.suite.hmac(&self.signs, &[covered]);
        tag.truncate(self.tag_len());
        tag
    }

    /// Whether that is the signature.
    #[must_use]
    pub fn verifies(&self, covered: &[u8], tag: &[u8]) -> bool {
        same(&self.tag(covered), tag)
    }

    /// The vector, then the encrypted message with its pad of 1, 2, 3, … and the pad's length (section 13.29.2).
    #[must_use]
    pub fn encrypt(&self, message: &[u8], iv: [u8; BLOCK]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * BLOCK + message.len() + 1);
        bytes.extend(iv);
        bytes.extend(message);
        let pad = (BLOCK - (message.len() + 1) % BLOCK) % BLOCK;
        bytes.extend((1..=pad).map(|n| n as u8));
        bytes.push(pad as u8);
        let mut cipher = Encryptor::<Aes128>::new(&Array(self.hides), &Array(iv));
        let (blocks, _) = Array::slice_as_chunks_mut(&mut bytes[BLOCK..]);
        cipher.encrypt_blocks(blocks);
        bytes
    }

    /// The message in what [`Keys::encrypt`] made. Call it after [`Keys::verifies`] only.
    ///
    /// # Errors
    /// [`Malformed`]: no whole blocks, or a pad that is longer than they are.
    pub fn decrypt(&self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        let bound = "two or more whole blocks of 16";
        let Some((iv, hidden)) = payload.split_first_chunk::<BLOCK>() else {
            return Err(malformed("the encrypted payload's length", payload.len(), bound));
        };
        if hidden.is_empty() || hidden.len() % BLOCK != 0 {
            return Err(malformed("the encrypted payload's length", payload.len(), bound));
        }
        let mut bytes = hidden.to_vec();
        let mut cipher = Decryptor::<Aes128>::new(&Array(self.hides), &Array(*iv));
        let (blocks, _) = Array::slice_as_chunks_mut(&mut bytes);
        cipher.decrypt_blocks(blocks);
        let pad = usize::from(bytes.pop().unwrap_or_default());
        let length = bytes.len().checked_sub(pad);
        bytes.truncate(length.ok_or(malformed("the confidentiality pad", pad, "shorter than the payload"))?);
        Ok(bytes)
    }
}

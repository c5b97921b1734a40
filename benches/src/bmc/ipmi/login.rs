//! The BMC's end of Open Session and RAKP 1 to 4.

use rack::power::rmcp::{
    Privilege,
    crypto::{Exchange, Keys, same},
    packet::{Kind, Plus, Window, write_setup},
    setup::{OpenRequest, OpenResponse, Proof, Rakp1, Rakp2, Status},
};
use schema::time::Timestamp;

use super::{Bmc, SESSIONS, Session, Stage};

impl Bmc {
    pub(super) fn log_in(&mut self, plus: &Plus<'_>, random: [u8; 16], now: Timestamp) -> Option<Vec<u8>> {
        match plus.kind {
            Kind::OpenRequest => {
                let said = self.open(&OpenRequest::read(plus.payload).ok()?, now);
                Some(write_setup(Kind::OpenResponse, &said.write()))
            }
            Kind::Rakp1 => {
                let said = self.prove(&Rakp1::read(plus.payload).ok()?, random)?;
                Some(write_setup(Kind::Rakp2, &said.write()))
            }
            Kind::Rakp3 => {
                let said = self.check(&Proof::read(plus.payload).ok()?)?;
                Some(write_setup(Kind::Rakp4, &said.write()))
            }
            _ => None,
        }
    }

    fn open(&mut self, asked: &OpenRequest, now: Timestamp) -> OpenResponse {
        let mut said = OpenResponse {
            tag: asked.tag,
            status: Status::OK,
            // 0 asks for the most there is.
            privilege: if asked.privilege == 0 { self.setup.limit as u8 } else { asked.privilege },
            console_session: asked.console_session,
            bmc_session: 0,
            algorithms: asked.algorithms,
        };
        let Some(suite) = self.setup.suites.iter().copied().find(|s| s.algorithms() == asked.algorithms) else {
            return OpenResponse { status: Status::NO_SUITE, ..said };
        };
        if self.chassis.faults.no_sessions {
            return OpenResponse { status: Status::NO_RESOURCES, ..said };
        }
        if self.sessions.len() >= SESSIONS {
            // Whoever began and went away makes room.
            let idle = self.sessions.iter().position(|s| !matches!(s.stage, Stage::Active { .. }));
            match idle {
                Some(at) => drop(self.sessions.remove(at)),
                None => return OpenResponse { status: Status::NO_RESOURCES, ..said },
            }
        }
        self.given = self.given.wrapping_add(1).max(1);
        said.bmc_session = self.given;
        let exchange = Exchange {
            suite,
            console_session: asked.console_session,
            bmc_session: said.bmc_session,
            console_random: [0; 16],
            bmc_random: [0; 16],
            guid: self.setup.guid,
            role: 0,
            user: Vec::new(),
        };
        self.sessions.push(Session { exchange, stage: Stage::Opened, used: now, level: Privilege::User });
        said
    }

    fn prove(&mut self, asked: &Rakp1, random: [u8; 16]) -> Option<Rakp2> {
        let password = self.password();
        let at = self.sessions.iter().position(|s| s.exchange.bmc_session == asked.bmc_session)?;
        let session = &mut self.sessions[at];
        let exchange = &mut session.exchange;
        (exchange.console_random, exchange.bmc_random) = (asked.console_random, random);
        (exchange.role, exchange.user) = (asked.role, asked.user.clone());
        let status = match Privilege::from_bits(asked.role) {
            None => Status::INVALID_ROLE,
            Some(_) if self.chassis.faults.locked => Status::UNAUTHORIZED_NAME,
            Some(_) if asked.user != self.setup.user.as_bytes() => Status::UNAUTHORIZED_NAME,
            Some(level) if level > self.setup.limit => Status::UNAUTHORIZED_ROLE,
            Some(_) => Status::OK,
        };
        let said = Rakp2 {
            tag: asked.tag,
            status,
            console_session: exchange.console_session,
            bmc_random: exchange.bmc_random,
            guid: exchange.guid,
            code: exchange.bmc_code(&password),
        };
        if status == Status::OK {
            session.stage = Stage::Proved;
        } else {
            self.sessions.remove(at);
        }
        Some(said)
    }

    fn check(&mut self, asked: &Proof) -> Option<Proof> {
        let password = self.password();
        let at = self.sessions.iter().position(|s| s.exchange.bmc_session == asked.session)?;
        let session = &mut self.sessions[at];
        if asked.status != Status::OK || !matches!(session.stage, Stage::Proved) {
            self.sessions.remove(at);
            return None;
        }
        let exchange = &session.exchange;
        let mut said =
            Proof { tag: asked.tag, status: Status::OK, session: exchange.console_session, code: Vec::new() };
        if !same(&exchange.console_code(&password), &asked.code) {
            said.status = Status::INVALID_CHECK;
            self.sessions.remove(at);
            return Some(said);
        }
        let key = exchange.session_key(self.setup.kg.as_deref().unwrap_or(&password));
        said.code = exchange.check(&key);
        let keys = Box::new(Keys::new(exchange.suite, &key));
        session.stage = Stage::Active { keys, sent: 0, heard: Window::default(), last: None };
        Some(said)
    }

    fn password(&self) -> Vec<u8> {
        let mut password = self.setup.password.clone().into_bytes();
        if self.chassis.faults.wrong_password {
            password.extend(b"-changed");
        }
        password
    }
}

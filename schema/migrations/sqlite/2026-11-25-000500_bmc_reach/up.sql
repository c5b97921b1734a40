-- Which rack reaches which BMC: learned, refreshed, and forgotten when it expires.
CREATE TABLE bmc_reach (
    bmc TEXT NOT NULL,
    rack TEXT NOT NULL,
    reachable BOOLEAN NOT NULL,
    at BIGINT NOT NULL,
    how TEXT NOT NULL,
    PRIMARY KEY (bmc, rack)
);

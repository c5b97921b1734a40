DROP TABLE bmc_reach;

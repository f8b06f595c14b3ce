"""Public real data sets as networks of sites: fetched from their publishers, checked, split.

    sources.py            what each data set is, where it comes from, and the SHA-256 of its files
    fetch.py              publisher (or a folder with copies) -> checked raw files
    uci_diabetes_130.py   contract `hospital_encounter` and its loader
    uci_diabetes_codes.py its code tables
    ca_dmhc_imr.py        contract `imr_determination` and its loader
    ca_dmhc_imr_codes.py  its longer lists of names
    uci_heart_disease.py  contract `cardiac_exam` and its loader
    site_folders.py       raw rows -> tokens, valid tables, site folders
    registry.py           PUBLIC: name -> source and loader

`catalog` imports the three contracts from here, so nothing here imports `catalog`.
"""

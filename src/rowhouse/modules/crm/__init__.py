"""The CRM core: companies, people, deals going through pipelines, and what was done about them.

Words. An *account* is a company or organisation; a *contact* is a person, with a lifecycle from LEAD to CUSTOMER; an
*opportunity* is a deal, standing in one *stage* of one *pipeline*, and OPEN, WON or LOST as that stage says. Its *lines*
make its amount once there are any. An *activity* is a call, mail, meeting, task or note, done or planned. A *merge*
brings doubles together and can be undone for thirty days.

Where a deal stands changes by its actions alone (move, win, lose, reopen, change-pipeline, and a repeated import, which
uses the same function), so the stage history is complete and no row of it is ever altered. `amount_base_minor` and
`weighted_minor` are in the tenant's currency: converted at the exchange rate of today while a deal is open (`revalue`
refreshes them), of the closing day afterwards.

    states      the closed sets of words            actions/known       what one call has read already
    models      the tables                          actions/stages      the one way into a stage
    rules       pure functions                      actions/worth       lines, amounts, exchange rates
    resources   what callers see                    actions/deal_writes create and update with lines and people
    reports/    board, forecast, funnel, lists      actions/merge       and merge_undo: doubles

Left out of the reference (domain/core.md, section 3): custom fields; a table of lost reasons (a deal holds the reason as
text) and of lifecycle changes (audit log and event hold them); quotas and nightly pipeline snapshots; participants,
privacy and metadata of activities; campaigns, products and service periods of deals; the tenant settings for unique
account domains, mandatory order of stages and the refusal of likely doubles on create; doubles by similar spelling
(names are compared in their normal form); the registrable part of a domain (the host without "www." is compared);
velocity; consent checks before sending, which belong to whoever sends.
"""

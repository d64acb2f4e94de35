"""Turn a command line into a checked configuration, and that into agent and environments: what all commands share.

Others may use:

- ``command`` runs: ``launch`` composes a command and runs it.
- ``arguments`` reads: ``rewrite_overrides``, ``check_keys`` and ``load_defaults`` are for composing a command inside
  another.
- ``sentences`` tells: ``describe`` makes one sentence of a fault; ``FAULTS`` are those of which it can.
- ``check`` checks: ``ConfigError``, ``construct``, ``check_node``, ``convert``, ``read_list``, ``choose_names``,
  ``prepare_output``, ``suggest``, ``to_dict``.
- ``build`` builds: ``build`` and what it returns, ``Parts`` with its ``Settings``; ``read_settings``,
  ``check_device``.
- ``environments`` makes environments of a checked node: ``construct_environments``; ``WRAPPERS`` are its keys of any.
- ``help`` fills in what a command line leaves out: ``fill_defaults``.
- ``evaluations`` evaluates: ``Evaluations`` of a run, ``evaluate_agent``.
- ``claim`` gives a run a folder of its own: ``claim_folder`` and what it yields, ``RunFolder``; ``read_overrides``,
  ``tell_how_to_go_on``, ``name_target``, ``holds_run``. It uses ``lock``, which also
  says who has a folder: ``find_holder``, ``is_locked``.
- ``jobs`` runs the jobs of a sweep; ``launchers`` reads from a command line where.
- ``run_folder`` reads and writes what a run leaves: ``load_run_config``, ``load_resumed_config``, ``flatten``,
  ``name_agent``, ``name_core``, ``name_encoder``, ``name_env``, ``write_result``.
"""

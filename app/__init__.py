"""HTTP subsystems and pack loading. Each subsystem is a class that gets what it needs when it is constructed:

========================  ==============================================  =========================================================
class                     constructed with                                registered by
========================  ==============================================  =========================================================
``UserManager``           –                                               ``add_routes(routes)``: users, settings, user data
``ViewRoutes``            –                                               ``add_routes(routes)``
``UploadRoutes``          ``args.default_hashing_function``               ``add_routes(routes)``
``ModelRoutes``           –                                               ``add_routes(routes)``
``ModelFileManager``      –                                               ``add_routes(routes)``
``SubgraphManager``       folder of blueprints or None                    ``add_routes(routes)``
``ExtensionRoutes``       web root or None, ``nodes.EXTENSION_WEB_DIRS``  ``add_routes(routes)``, ``add_static(app)``
``CustomNodeManager``     –                                               ``add_routes(routes, app, loaded_modules)`` after the packs
``FrontendRoutes``        web root or None, template assets, docs folder  ``add_routes(routes)``; ``add_static(app)`` last of all
``InternalRoutes``        ``send_sync``, ``is_connected(client_id)``      ``app.add_subapp("/internal", internal.get_app())``
``AssetsDisabledRoutes``  –                                               ``add_routes(routes)``, paths already carry ``/api``
========================  ==============================================  =========================================================

The web root is ``args.front_end_root`` or ``FrontendManager.init_frontend(args.front_end_version)``, which raises
``FrontendMissing``: give its message to ``FrontendRoutes`` and serve the API without the page.
"""
